// csi-driver gives Pods volumes that are file systems in files of the node (by loop devices), so that a volume's size is what programs in the
// Pod see, and grows when its claim does.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// name is what StorageClasses call the driver.
const name = "csi.lab.garboard.dev"

func main() {
	listen := flag.String("listen", "", "path of the socket for CSI")
	folder := flag.String("volumes", "", "folder that the volumes are in")
	node := flag.String("node", "", "the node's name; without it there are no volumes here, only answers to who asks what the driver can do")
	registry := flag.String("registry", "", "folder in which the kubelet of the node looks for plugins")
	flag.Parse()
	if err := run(*listen, *folder, *node, *registry); err != nil {
		fmt.Fprintln(os.Stderr, "csi-driver:", err)
		os.Exit(1)
	}
}

func run(listen, folder, node, registry string) error {
	ended := make(chan error, 2)
	server := grpc.NewServer(grpc.UnaryInterceptor(logged))
	csi.RegisterIdentityServer(server, identity{})
	csi.RegisterNodeServer(server, &nodeServer{node: node})
	csi.RegisterControllerServer(server, &controllerServer{node: node})
	if node != "" {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return err
		}
		volumes = folder
	}
	if err := serve(server, listen, ended); err != nil {
		return err
	}
	if node != "" {
		server := grpc.NewServer()
		registration.RegisterRegistrationServer(server, registrar{endpoint: listen})
		if err := serve(server, filepath.Join(registry, name+".sock"), ended); err != nil {
			return err
		}
	}
	return <-ended
}

// serve listens on a unix socket, in place of one that was left by a process before.
func serve(server *grpc.Server, path string, ended chan<- error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	go func() { ended <- server.Serve(listener) }()
	return nil
}

func logged(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	answer, err := handle(ctx, request)
	if err != nil {
		log.Printf("%s %v: %v", info.FullMethod, request, err)
	}
	return answer, err
}

// registrar tells kubelet where the driver is.
type registrar struct {
	registration.UnimplementedRegistrationServer
	endpoint string
}

func (r registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type:              registration.CSIPlugin,
		Name:              name,
		Endpoint:          r.endpoint,
		SupportedVersions: []string{"1.0.0"},
	}, nil
}

func (r registrar) NotifyRegistrationStatus(_ context.Context, told *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	// Whoever starts this program starts it again, and then it asks again.
	if !told.PluginRegistered {
		log.Fatalf("kubelet refuses: %s", told.Error)
	}
	return &registration.RegistrationStatusResponse{}, nil
}

type identity struct {
	csi.UnimplementedIdentityServer
}

func (identity) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: name, VendorVersion: "1"}, nil
}

func (identity) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

func (identity) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	service := func(kind csi.PluginCapability_Service_Type) *csi.PluginCapability {
		return &csi.PluginCapability{Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{Type: kind}}}
	}
	online := csi.PluginCapability_VolumeExpansion{Type: csi.PluginCapability_VolumeExpansion_ONLINE}
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{
		service(csi.PluginCapability_Service_CONTROLLER_SERVICE),
		service(csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS),
		{Type: &csi.PluginCapability_VolumeExpansion_{VolumeExpansion: &online}},
	}}, nil
}
