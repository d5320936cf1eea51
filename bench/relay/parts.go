package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/rpc"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"imapwarden/bench/internal/rig"
)

// partVariable names, in the environment, the part that this program plays when it starts
// itself.
const partVariable = "IMAPWARDEN_BENCH_PART"

var parts = map[string]func(arguments []string) error{
	"upstream": playUpstream,
	"load":     playLoad,
}

// playPart ends the process, also on SIGTERM, without an error.
func playPart(part func([]string) error) {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	go func() {
		<-ended
		os.Exit(0)
	}()
	if err := part(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// partCommand starts this program again.
func partCommand(part string, arguments ...string) (*exec.Cmd, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := exec.Command(program, arguments...)
	c.Env = append(os.Environ(), partVariable+"="+part)
	return c, nil
}

// playUpstream serves mailboxes without and with TLS, and tells nginx where they are: its
// arguments are three addresses and the folder of the certificate.
func playUpstream(arguments []string) error {
	cert, err := tls.LoadX509KeyPair(filepath.Join(arguments[3], rig.CertName), filepath.Join(arguments[3], rig.KeyName))
	if err != nil {
		return err
	}
	plain, err := net.Listen("tcp", arguments[0])
	if err != nil {
		return err
	}
	secure, err := tls.Listen("tcp", arguments[1], &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		return err
	}
	go rig.ServeMailboxes(plain)
	go rig.ServeMailboxes(secure)
	host, port, err := net.SplitHostPort(arguments[0])
	if err != nil {
		return err
	}
	// nginx asks this for every login (ngx_mail_auth_http_module).
	return http.ListenAndServe(arguments[2], http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Auth-Status", "OK")
		w.Header().Set("Auth-Server", host)
		w.Header().Set("Auth-Port", port)
	}))
}

// playLoad is the mail programs: it does what it is told on standard input. Its argument is
// the folder of the certificate.
func playLoad(arguments []string) error {
	believe, err := rig.Believe(arguments[0])
	if err != nil {
		return err
	}
	server := rpc.NewServer()
	if err := server.Register(&Load{believe: believe, tickets: make(map[string]tls.ClientSessionCache)}); err != nil {
		return err
	}
	server.ServeConn(pipes{os.Stdin, os.Stdout})
	return nil
}

// pipes are both directions of a connection.
type pipes struct {
	io.ReadCloser
	io.Writer
}
