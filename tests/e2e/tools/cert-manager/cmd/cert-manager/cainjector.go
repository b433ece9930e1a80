package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apiext "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kscheme "k8s.io/client-go/kubernetes/scheme"
	logsapi "k8s.io/component-base/logs/api/v1"
	apireg "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	cmscheme "github.com/cert-manager/cert-manager/pkg/client/clientset/versioned/scheme"
	"github.com/cert-manager/cert-manager/pkg/controller/cainjector"
	logf "github.com/cert-manager/cert-manager/pkg/logs"
	"github.com/cert-manager/cert-manager/pkg/util"
)

// cainjectorCommand writes the authority of the webhook where the API server looks for it.
func cainjectorCommand() (*cobra.Command, error) {
	logging := logsapi.NewLoggingConfiguration()
	var metrics string
	command := &cobra.Command{
		Use:   "cainjector",
		Short: "tells the API server by whom the webhook is signed",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := logf.ValidateAndApply(logging); err != nil {
				return err
			}
			ctrl.SetLogger(logf.Log)
			return runInjectors(logf.NewContext(cmd.Context(), logf.Log, "cainjector"), metrics)
		},
	}
	flags := command.Flags()
	flags.String("leader-election-namespace", "", "not used: nobody is elected")
	flags.StringVar(&metrics, "metrics-listen-address", "0", "where metrics are served; 0: nowhere")
	logf.AddFlags(logging, flags)
	return command, nil
}

func runInjectors(ctx context.Context, metrics string) error {
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		kscheme.AddToScheme, cmscheme.AddToScheme, apiext.AddToScheme, apireg.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return err
		}
	}
	manager, err := ctrl.NewManager(util.RestConfigWithUserAgent(config, "cainjector"), ctrl.Options{
		Scheme: scheme,
		Cache:  cache.Options{ReaderFailOnMissingInformer: true},
		// Secrets are watched by their metadata alone, so that they cannot be read from what was watched.
		Client:  client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}}}},
		Metrics: server.Options{BindAddress: metrics},
	})
	if err != nil {
		return fmt.Errorf("make the manager: %w", err)
	}
	// The webhook's authority is in a Secret of its own; nothing in a lab has it from a Certificate.
	err = cainjector.RegisterAllInjectors(ctx, manager, cainjector.SetupOptions{
		EnabledReconcilersFor: map[string]bool{
			cainjector.MutatingWebhookConfigurationName:   true,
			cainjector.ValidatingWebhookConfigurationName: true,
		},
	})
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	return manager.Start(ctx)
}
