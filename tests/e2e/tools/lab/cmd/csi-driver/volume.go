package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// sizeMin is the smallest file system that mkfs.xfs makes, in bytes.
//
// XFS, because ext4 lets only those grow it who have CAP_SYS_RESOURCE, and root in a container often has not.
const sizeMin = 300 << 20

var (
	// volumes is the folder that they are in.
	volumes string
	// changing is held while a volume or a mount changes: one at a time is fast enough.
	changing sync.Mutex
	ids      = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,99}$`)
)

// volume is a file with a file system in it.
type volume struct {
	id   string
	path string
}

// open names a volume, whether it is there or not.
func open(id string) (volume, error) {
	if !ids.MatchString(id) {
		return volume{}, status.Errorf(codes.InvalidArgument, "volume %q: an id has up to 100 lower case letters, digits and hyphens", id)
	}
	return volume{id: id, path: filepath.Join(volumes, id+".img")}, nil
}

// size in bytes.
func (v volume) size() (int64, error) {
	info, err := os.Stat(v.path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, status.Errorf(codes.NotFound, "volume %s is not there", v.id)
	}
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// create makes the volume, of at least required and, unless that is 0, at most limit bytes, and returns its size.
func (v volume) create(required, limit int64) (int64, error) {
	changing.Lock()
	defer changing.Unlock()
	if size, err := v.size(); status.Code(err) != codes.NotFound {
		if err == nil && (size < required || limit > 0 && size > limit) {
			return 0, status.Errorf(codes.AlreadyExists, "volume %s is there with %d bytes", v.id, size)
		}
		return size, err
	}
	size := max(required, sizeMin)
	if limit > 0 && size > limit {
		return 0, status.Errorf(codes.OutOfRange, "no volume has less than %d bytes", size)
	}
	// Made beside its place, so that what is there has its file system.
	next := v.path + ".next"
	if err := os.WriteFile(next, nil, 0o600); err != nil {
		return 0, err
	}
	if err := os.Truncate(next, size); err != nil {
		return 0, err
	}
	if _, err := command("mkfs.xfs", "-q", "-f", next); err != nil {
		return 0, err
	}
	return size, os.Rename(next, v.path)
}

func (v volume) remove() error {
	changing.Lock()
	defer changing.Unlock()
	if err := os.Remove(v.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// stage mounts the file system. The loop device goes when the mount does, however that ends.
func (v volume) stage(target string) error {
	changing.Lock()
	defer changing.Unlock()
	if _, err := v.size(); err != nil {
		return err
	}
	if mounted(target) {
		return nil
	}
	_, err := command("mount", "--types", "xfs", "--options", "loop", v.path, target)
	return err
}

// expand grows the volume, mounted at path, to at least required bytes, and returns its size.
func (v volume) expand(path string, required int64) (int64, error) {
	changing.Lock()
	defer changing.Unlock()
	size, err := v.size()
	if err != nil {
		return 0, err
	}
	if size < required {
		size = required
		if err := os.Truncate(v.path, size); err != nil {
			return 0, err
		}
	}
	// Also of a file that has the size already: an expansion may have ended here.
	device, err := command("findmnt", "--noheadings", "--first-only", "--output", "SOURCE", "--mountpoint", path)
	if err != nil {
		return 0, err
	}
	if _, err := command("losetup", "--set-capacity", device); err != nil {
		return 0, err
	}
	_, err = command("xfs_growfs", path)
	return size, err
}

// publish shows at target what is mounted at staged.
func publish(staged, target string, readOnly bool) error {
	changing.Lock()
	defer changing.Unlock()
	if mounted(target) {
		return nil
	}
	if err := os.MkdirAll(target, 0o750); err != nil {
		return err
	}
	options := "bind"
	if readOnly {
		options = "bind,ro"
	}
	_, err := command("mount", "--options", options, staged, target)
	return err
}

// unpublish takes back what publish did, the folder as well.
func unpublish(target string) error {
	if err := unmount(target); err != nil {
		return err
	}
	if err := os.Remove(target); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func unmount(target string) error {
	changing.Lock()
	defer changing.Unlock()
	if !mounted(target) {
		return nil
	}
	_, err := command("umount", target)
	return err
}

func mounted(path string) bool {
	return exec.Command("mountpoint", "--quiet", path).Run() == nil
}

// command returns what it prints, or an error with what it says.
func command(name string, args ...string) (string, error) {
	output, err := exec.Command(name, args...).Output()
	if err == nil {
		return strings.TrimSpace(string(output)), nil
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(exit.Stderr)))
	}
	return "", fmt.Errorf("%s: %w", name, err)
}
