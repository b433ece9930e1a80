// cert-manager in one program, for tests: its controller, webhook and cainjector, with the issuers SelfSigned and CA alone. The modules that its own
// programs are made of are on no proxy; what they link is, and does all the work.
package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/cert-manager/cert-manager/internal/cmd/util"
	logf "github.com/cert-manager/cert-manager/pkg/logs"
)

func main() {
	ctx, exit := util.SetupExitHandler(context.Background(), util.GracefulShutdown)
	defer exit()
	logf.InitLogs()
	defer logf.FlushLogs()

	root := &cobra.Command{Use: "cert-manager", SilenceErrors: true, SilenceUsage: true}
	for _, part := range []func() (*cobra.Command, error){controllerCommand, webhookCommand, cainjectorCommand} {
		command, err := part()
		if err != nil {
			fail(err)
			return
		}
		root.AddCommand(command)
	}
	if err := root.ExecuteContext(logf.NewContext(ctx, logf.Log)); err != nil {
		fail(err)
	}
}

func fail(err error) {
	logf.Log.Error(err, "ended")
	util.SetExitCode(err)
}
