package main

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// topologyKey is the label by which Pods find to the node of their volume.
const topologyKey = "lab.garboard.dev/node"

func topology(node string) *csi.Topology {
	return &csi.Topology{Segments: map[string]string{topologyKey: node}}
}

// controllerServer makes and removes volumes of the node that it runs on.
type controllerServer struct {
	csi.UnimplementedControllerServer
	node string
}

func (*controllerServer) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	rpc := csi.ControllerServiceCapability_RPC{Type: csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME}
	return &csi.ControllerGetCapabilitiesResponse{Capabilities: []*csi.ControllerServiceCapability{
		{Type: &csi.ControllerServiceCapability_Rpc{Rpc: &rpc}},
	}}, nil
}

func (s *controllerServer) CreateVolume(_ context.Context, request *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if s.node == "" {
		return nil, status.Error(codes.FailedPrecondition, "volumes are made on nodes, and this is none")
	}
	for _, capability := range request.GetVolumeCapabilities() {
		if !possible(capability) {
			return nil, status.Errorf(codes.InvalidArgument, "not possible: %v", capability)
		}
	}
	volume, err := open(request.GetName())
	if err != nil {
		return nil, err
	}
	size, err := volume.create(request.GetCapacityRange().GetRequiredBytes(), request.GetCapacityRange().GetLimitBytes())
	if err != nil {
		return nil, err
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{
		VolumeId:           volume.id,
		CapacityBytes:      size,
		AccessibleTopology: []*csi.Topology{topology(s.node)},
	}}, nil
}

func (*controllerServer) DeleteVolume(_ context.Context, request *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	volume, err := open(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return &csi.DeleteVolumeResponse{}, volume.remove()
}

func (*controllerServer) ValidateVolumeCapabilities(_ context.Context, request *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	volume, err := open(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if _, err := volume.size(); err != nil {
		return nil, err
	}
	for _, capability := range request.GetVolumeCapabilities() {
		if !possible(capability) {
			return &csi.ValidateVolumeCapabilitiesResponse{}, nil
		}
	}
	confirmed := csi.ValidateVolumeCapabilitiesResponse_Confirmed{VolumeCapabilities: request.GetVolumeCapabilities()}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &confirmed}, nil
}

// possible says whether a volume can be had so: as a file system, on one node at a time.
func possible(capability *csi.VolumeCapability) bool {
	if capability.GetMount() == nil {
		return false
	}
	switch capability.GetAccessMode().GetMode() {
	case csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
		csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY,
		csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER,
		csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER:
		return true
	default:
		return false
	}
}

// nodeServer mounts volumes where kubelet wants them: once for the node (staged), and from there for each Pod (published).
type nodeServer struct {
	csi.UnimplementedNodeServer
	node string
}

func (s *nodeServer) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: s.node, AccessibleTopology: topology(s.node)}, nil
}

func (*nodeServer) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	var capabilities []*csi.NodeServiceCapability
	for _, kind := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		rpc := csi.NodeServiceCapability_RPC{Type: kind}
		capabilities = append(capabilities, &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{Rpc: &rpc}})
	}
	return &csi.NodeGetCapabilitiesResponse{Capabilities: capabilities}, nil
}

func (*nodeServer) NodeStageVolume(_ context.Context, request *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	volume, err := open(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return &csi.NodeStageVolumeResponse{}, volume.stage(request.GetStagingTargetPath())
}

func (*nodeServer) NodeUnstageVolume(_ context.Context, request *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	return &csi.NodeUnstageVolumeResponse{}, unmount(request.GetStagingTargetPath())
}

func (*nodeServer) NodePublishVolume(_ context.Context, request *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	return &csi.NodePublishVolumeResponse{}, publish(request.GetStagingTargetPath(), request.GetTargetPath(), request.GetReadonly())
}

func (*nodeServer) NodeUnpublishVolume(_ context.Context, request *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	return &csi.NodeUnpublishVolumeResponse{}, unpublish(request.GetTargetPath())
}

func (*nodeServer) NodeExpandVolume(_ context.Context, request *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	volume, err := open(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	size, err := volume.expand(request.GetVolumePath(), request.GetCapacityRange().GetRequiredBytes())
	if err != nil {
		return nil, err
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: size}, nil
}
