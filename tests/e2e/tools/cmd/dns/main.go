// Command dns serves the records of a file, by UDP and TCP: `dns <address> <file>`.
//
// A line of the file is `A <name> <address>` or `SRV <name> <priority> <weight> <port> <target>`. It is read at each question, so that records
// can change. An answer that does not fit a datagram of 512 bytes is cut short there (RFC 1035, 4.2.1), and whole by TCP.
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

const datagramBytesMax = 512

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: dns <address> <file>")
	}
	address, file := os.Args[1], os.Args[2]
	datagrams, err := net.ListenPacket("udp", address)
	if err != nil {
		log.Fatal(err)
	}
	streams, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("serving", address)
	go func() {
		for {
			stream, err := streams.Accept()
			if err != nil {
				log.Fatal(err)
			}
			go func() {
				defer stream.Close()
				if err := serveStream(stream, file); err != nil && err != io.EOF {
					log.Print(err)
				}
			}()
		}
	}()
	question := make([]byte, datagramBytesMax)
	for {
		n, from, err := datagrams.ReadFrom(question)
		if err != nil {
			log.Fatal(err)
		}
		answer, err := answer(question[:n], file, datagramBytesMax)
		if err != nil {
			log.Print(err)
			continue
		}
		if _, err := datagrams.WriteTo(answer, from); err != nil {
			log.Print(err)
		}
	}
}

func serveStream(stream net.Conn, file string) error {
	for {
		var length [2]byte
		if _, err := io.ReadFull(stream, length[:]); err != nil {
			return err
		}
		question := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(stream, question); err != nil {
			return err
		}
		answer, err := answer(question, file, 1<<16-1)
		if err != nil {
			return err
		}
		binary.BigEndian.PutUint16(length[:], uint16(len(answer)))
		fmt.Println("by TCP")
		if _, err := stream.Write(append(length[:], answer...)); err != nil {
			return err
		}
	}
}

// answer packs what the file says to the first question.
func answer(bytes []byte, file string, bytesMax int) ([]byte, error) {
	var asked dnsmessage.Message
	if err := asked.Unpack(bytes); err != nil {
		return nil, err
	}
	if len(asked.Questions) != 1 {
		return nil, fmt.Errorf("%d questions", len(asked.Questions))
	}
	question := asked.Questions[0]
	found, known, err := lookUp(question, file)
	if err != nil {
		return nil, err
	}
	reply := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: asked.ID, Response: true, Authoritative: true, RecursionDesired: asked.RecursionDesired, RecursionAvailable: true,
		},
		Questions: asked.Questions,
		Answers:   found,
	}
	if !known {
		reply.RCode = dnsmessage.RCodeNameError
	}
	packed, err := reply.Pack()
	if err != nil || len(packed) <= bytesMax {
		return packed, err
	}
	reply.Truncated, reply.Answers = true, nil
	return reply.Pack()
}

// lookUp returns the records of the question, and whether there are any of its name.
func lookUp(question dnsmessage.Question, file string) ([]dnsmessage.Resource, bool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, false, err
	}
	var found []dnsmessage.Resource
	known := false
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) < 3 || !strings.EqualFold(words[1]+".", question.Name.String()) {
			continue
		}
		known = true
		body, kind, err := body(words)
		if err != nil {
			return nil, false, fmt.Errorf("%q: %w", line, err)
		}
		if kind == question.Type {
			header := dnsmessage.ResourceHeader{Name: question.Name, Type: kind, Class: dnsmessage.ClassINET, TTL: 1}
			found = append(found, dnsmessage.Resource{Header: header, Body: body})
		}
	}
	return found, known, nil
}

func body(words []string) (dnsmessage.ResourceBody, dnsmessage.Type, error) {
	switch {
	case words[0] == "A" && len(words) == 3:
		address, err := netip.ParseAddr(words[2])
		if err != nil {
			return nil, 0, err
		}
		return &dnsmessage.AResource{A: address.As4()}, dnsmessage.TypeA, nil
	case words[0] == "SRV" && len(words) == 6:
		var record dnsmessage.SRVResource
		if _, err := fmt.Sscan(strings.Join(words[2:5], " "), &record.Priority, &record.Weight, &record.Port); err != nil {
			return nil, 0, err
		}
		target, err := dnsmessage.NewName(words[5] + ".")
		record.Target = target
		return &record, dnsmessage.TypeSRV, err
	}
	return nil, 0, fmt.Errorf("no record")
}
