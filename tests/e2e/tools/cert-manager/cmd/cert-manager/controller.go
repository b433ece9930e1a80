package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	logsapi "k8s.io/component-base/logs/api/v1"

	"github.com/cert-manager/cert-manager/pkg/controller"
	"github.com/cert-manager/cert-manager/pkg/healthz"
	logf "github.com/cert-manager/cert-manager/pkg/logs"

	// Each says by itself that it is there. What cert-manager's own list of controllers names besides links the clients of a dozen clouds.
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/selfsigned"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/issuing"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/keymanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/readiness"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/requestmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/revisionmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/trigger"
	_ "github.com/cert-manager/cert-manager/pkg/controller/clusterissuers"
	_ "github.com/cert-manager/cert-manager/pkg/controller/issuers"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned"
)

const (
	// As the chart's probe has it.
	healthAddress = "0.0.0.0:9403"
	healthTimeout = 20 * time.Second
	// Of each controller: cert-manager's default.
	workers = 5
)

// controllerCommand has those flags that the chart sets. There is no election of a leader: the lab runs one, and updates none.
func controllerCommand() (*cobra.Command, error) {
	logging := logsapi.NewLoggingConfiguration()
	var namespace string
	command := &cobra.Command{
		Use:   "controller",
		Short: "makes certificates",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := logf.ValidateAndApply(logging); err != nil {
				return err
			}
			return runControllers(logf.NewContext(cmd.Context(), logf.Log, "controller"), namespace)
		},
	}
	flags := command.Flags()
	flags.StringVar(&namespace, "cluster-resource-namespace", "kube-system", "where the Secrets of ClusterIssuers are")
	flags.String("leader-election-namespace", "", "not used: nobody is elected")
	flags.String("acme-http01-solver-image", "", "not used: ACME is not in here")
	flags.Int("max-concurrent-challenges", 0, "not used: ACME is not in here")
	logf.AddFlags(logging, flags)
	return command, nil
}

func runControllers(ctx context.Context, namespace string) error {
	group, ctx := errgroup.WithContext(ctx)
	factory, err := controller.NewContextFactory(ctx, controller.ContextOptions{
		KubernetesAPIQPS:   20,
		KubernetesAPIBurst: 50,
		IssuerOptions:      controller.IssuerOptions{ClusterResourceNamespace: namespace},
		// cert-manager's defaults.
		CertificateOptions: controller.CertificateOptions{
			CopiedAnnotationPrefixes:                 []string{"*", "-kubectl.kubernetes.io/", "-fluxcd.io/", "-argocd.argoproj.io/"},
			CertificateRequestMinimumBackoffDuration: time.Hour,
			CertificateRequestMaximumBackoffDuration: 32 * time.Hour,
		},
	})
	if err != nil {
		return err
	}
	base, err := factory.Build()
	if err != nil {
		return err
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", healthAddress)
	if err != nil {
		return fmt.Errorf("listen for probes: %w", err)
	}
	group.Go(func() error { return healthz.NewServer(healthTimeout).Start(ctx, listener) })
	// All of them first: each asks the factories for what it wants to be told of.
	var all []controller.Interface
	for name, build := range controller.Known() {
		one, err := build(factory)
		if err != nil {
			return fmt.Errorf("controller %s: %w", name, err)
		}
		all = append(all, one)
	}
	base.SharedInformerFactory.Start(ctx.Done())
	base.KubeSharedInformerFactory.Start(ctx.Done())
	base.HTTP01ResourceMetadataInformersFactory.Start(ctx.Done())
	for _, one := range all {
		group.Go(func() error { return one.Run(workers, ctx) })
	}
	return group.Wait()
}
