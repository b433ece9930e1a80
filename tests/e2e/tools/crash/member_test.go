package crash

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// member is a server process that is killed and started again on one data directory and one address.
type member struct {
	testing.TB
	path, dir, url, peerURL string
	process                 *exec.Cmd
	exited                  chan error
	starts                  int
}

func newMember(t testing.TB) *member {
	m := &member{TB: t, path: os.Getenv("E2E_SERVER"), dir: os.Getenv("E2E_DIR")}
	if m.path == "" || m.dir == "" {
		t.Fatal("E2E_SERVER and E2E_DIR are not set")
	}
	m.url, m.peerURL = freeURL(t), freeURL(t)
	t.Cleanup(func() {
		if m.process != nil {
			m.kill()
		}
	})
	return m
}

func freeURL(t testing.TB) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return "http://" + listener.Addr().String()
}

func (m *member) log() string { return filepath.Join(m.dir, fmt.Sprintf("server-%04d.log", m.starts)) }

// spawn starts the process and does not wait for it.
func (m *member) spawn(extra ...string) {
	m.Helper()
	_ = os.Remove(filepath.Join(m.dir, fmt.Sprintf("server-%04d.log", m.starts-3)))
	m.starts++
	out, err := os.Create(m.log())
	if err != nil {
		m.Fatal(err)
	}
	defer out.Close()
	args := append([]string{
		"--name=crash", "--data-dir=" + filepath.Join(m.dir, "data"),
		"--listen-client-urls=" + m.url, "--advertise-client-urls=" + m.url,
		"--listen-peer-urls=" + m.peerURL, "--initial-advertise-peer-urls=" + m.peerURL,
		"--initial-cluster=crash=" + m.peerURL,
	}, extra...)
	m.process = exec.Command(m.path, args...)
	m.process.Stdout, m.process.Stderr = out, out
	m.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.process.Start(); err != nil {
		m.Fatal(err)
	}
	m.exited = make(chan error, 1)
	go func(process *exec.Cmd, exited chan error) { exited <- process.Wait() }(m.process, m.exited)
}

// ready waits until the member says that it serves.
func (m *member) ready() {
	m.Helper()
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		text, _ := os.ReadFile(m.log())
		if bytes.Contains(text, []byte("ready to serve client requests")) {
			return
		}
		select {
		case err := <-m.exited:
			m.Fatalf("start %d: the server ended with %v; log %s:\n%s", m.starts, err, m.log(), tail(text))
		default:
		}
		if time.Now().After(deadline) {
			m.Fatalf("start %d: not ready within 60 s; log %s:\n%s", m.starts, m.log(), tail(text))
		}
	}
}

func (m *member) kill() {
	m.Helper()
	_ = m.process.Process.Kill()
	select {
	case err := <-m.exited:
		if status, ok := m.process.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
			text, _ := os.ReadFile(m.log())
			m.Fatalf("start %d: the server ended by itself: %v; log %s:\n%s", m.starts, err, m.log(), tail(text))
		}
	case <-time.After(20 * time.Second):
		m.Fatal("the server survives SIGKILL")
	}
	m.process = nil
}

func (m *member) client() *clientv3.Client {
	m.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{m.url}, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		m.Fatal(err)
	}
	return client
}

func tail(text []byte) []byte {
	if len(text) > 3000 {
		return text[len(text)-3000:]
	}
	return text
}
