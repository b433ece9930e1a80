package differential

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// fast makes a member of one lead at once, where many are started. A lease lives one second at least then.
var fast = []string{"--heartbeat-interval=10", "--election-timeout=100"}

// server is one program with a data directory of its own. Both are started alike, so that their IDs are the same, too.
type server struct {
	testing.TB
	dir     string
	process *exec.Cmd
	exited  chan struct{}
}

// startServer starts the program that the environment names and waits until it serves.
func startServer(t testing.TB, program string, flags []string) (*server, error) {
	path, root := os.Getenv(program), os.Getenv("E2E_DIR")
	if path == "" || root == "" {
		return nil, fmt.Errorf("%s and E2E_DIR are not set", program)
	}
	dir, err := os.MkdirTemp(root, strings.ToLower(strings.TrimPrefix(program, "E2E_"))+"-")
	if err != nil {
		return nil, err
	}
	s := &server{TB: t, dir: dir, exited: make(chan struct{})}
	peer := "http://127.0.0.1:0"
	s.process = exec.Command(path, append([]string{
		"--name=default", "--data-dir=" + filepath.Join(dir, "data"),
		"--listen-client-urls=" + s.url(), "--advertise-client-urls=http://127.0.0.1:1",
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=default=" + peer,
	}, flags...)...)
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	said, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	s.process.Stdout, s.process.Stderr = out, out
	if err := s.process.Start(); err != nil {
		_ = said.Close()
		return nil, err
	}
	ready := make(chan struct{})
	go s.log(said, ready)
	select {
	case <-ready:
		return s, nil
	case <-s.exited:
		return nil, fmt.Errorf("%s ended before it served, see %s", path, dir)
	case <-time.After(time.Minute):
		_ = s.process.Process.Kill()
		return nil, fmt.Errorf("%s does not serve within a minute, see %s", path, dir)
	}
}

func (s *server) url() string { return "unix://" + filepath.Join(s.dir, "client.sock") }

// log keeps what the program says, until it ends.
func (s *server) log(said io.ReadCloser, ready chan<- struct{}) {
	defer close(s.exited)
	defer said.Close()
	file, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		s.Error(err)
		return
	}
	defer file.Close()
	for lines := bufio.NewReader(said); ; {
		line, err := lines.ReadString('\n')
		_, _ = io.WriteString(file, line)
		if ready != nil && strings.Contains(line, "ready to serve client requests") {
			close(ready)
			ready = nil
		}
		if err != nil {
			break
		}
	}
	_ = s.process.Wait()
}

func (s *server) stop(keep bool) {
	_ = s.process.Process.Kill()
	<-s.exited
	if !keep {
		_ = os.RemoveAll(s.dir)
	}
}

// pair is both servers, fresh.
type pair struct {
	ours, reference *side
	servers         [2]*server
	passing         bool // nobody will look at its folders, even if the test has failed
}

func (p *pair) stop() {
	for i, side := range []*side{p.ours, p.reference} {
		_ = side.conn.Close()
		p.servers[i].stop(p.servers[i].Failed() && !p.passing)
	}
}

// startPair starts both with the same flags; the caller stops them. Plants change what ours answers.
func startPair(t testing.TB, flags []string, plants ...grpc.UnaryClientInterceptor) *pair {
	t.Helper()
	type started struct {
		*server
		error
	}
	other := make(chan started, 1)
	go func() {
		s, err := startServer(t, "E2E_REFERENCE", flags)
		other <- started{s, err}
	}()
	ours, err := startServer(t, "E2E_SERVER", flags)
	reference := <-other
	if err != nil || reference.error != nil {
		t.Fatalf("%v %v", err, reference.error)
	}
	return &pair{
		ours: connect(t, ours.url(), plants...), reference: connect(t, reference.server.url()), servers: [2]*server{ours, reference.server},
	}
}

// both runs f on both sides at the same time.
func both[T any](p *pair, f func(*side) T) (ours, reference T) {
	done := make(chan T, 1)
	go func() { done <- f(p.reference) }()
	ours = f(p.ours)
	return ours, <-done
}

func connect(t testing.TB, url string, plants ...grpc.UnaryClientInterceptor) *side {
	t.Helper()
	conn, err := grpc.NewClient(url,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithChainUnaryInterceptor(plants...),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30), grpc.MaxCallSendMsgSize(1<<30)))
	if err != nil {
		t.Fatal(err)
	}
	return newSide(conn)
}
