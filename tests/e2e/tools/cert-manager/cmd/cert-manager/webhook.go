package main

import (
	"github.com/spf13/cobra"

	cmwebhook "github.com/cert-manager/cert-manager/internal/webhook"
	logf "github.com/cert-manager/cert-manager/pkg/logs"
	"github.com/cert-manager/cert-manager/pkg/webhook/options"
)

// webhookCommand refuses what is no valid object, and says who has asked for a certificate.
func webhookCommand() (*cobra.Command, error) {
	config, err := options.NewWebhookConfiguration()
	if err != nil {
		return nil, err
	}
	command := &cobra.Command{
		Use:   "webhook",
		Short: "judges objects before they are kept",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := logf.ValidateAndApply(&config.Logging); err != nil {
				return err
			}
			ctx := logf.NewContext(cmd.Context(), logf.Log, "webhook")
			server, err := cmwebhook.NewCertManagerWebhookServer(logf.FromContext(ctx), *config)
			if err != nil {
				return err
			}
			return server.Run(ctx)
		},
	}
	options.AddConfigFlags(command.Flags(), config)
	return command, nil
}
