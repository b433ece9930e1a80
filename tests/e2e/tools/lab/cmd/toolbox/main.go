// toolbox is what tests ask of a Pod: a web server, a web client, a resolver of names.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sort"
	"strings"
	"time"
)

const usage = `toolbox serve ADDRESS   answers each request with this host's name
toolbox get URL         prints the body of an answer
toolbox lookup NAME     prints the addresses of a name, one a line`

const limit = 10 * time.Second

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "toolbox:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("what to do?\n%s", usage)
	}
	switch what, with := args[0], args[1]; what {
	case "serve":
		return serve(with)
	case "get":
		return get(with)
	case "lookup":
		return lookup(with)
	default:
		return fmt.Errorf("unknown: %s\n%s", what, usage)
	}
}

func serve(address string) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	handler := http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		fmt.Println(request.RemoteAddr, request.Method, request.URL)
		fmt.Fprintln(answer, name)
	})
	server := http.Server{Addr: address, Handler: handler, ReadHeaderTimeout: limit}
	return server.ListenAndServe()
}

func get(url string) error {
	client := http.Client{Timeout: limit}
	answer, err := client.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(os.Stdout, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, answer.Status)
	}
	return nil
}

func lookup(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, name)
	if err != nil {
		return err
	}
	sort.Strings(addresses)
	fmt.Println(strings.Join(addresses, "\n"))
	return nil
}
