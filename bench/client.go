package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// conn is one keep-alive HTTP/1.1 connection. A client as cheap as this leaves
// the core it shares with the simulator to the requests.
type conn struct {
	net.Conn
	reader *bufio.Reader
	body   []byte
}

// answerTimeout bounds one request.
const answerTimeout = 20 * time.Second

func dial(address string) (*conn, error) {
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, reader: bufio.NewReaderSize(c, 8<<10)}, nil
}

// do sends one request and reads its answer. The body is valid until the next
// call. Only answers with a length are accepted: wxidp sends no others.
func (c *conn) do(request []byte) (status int, body []byte, err error) {
	if _, err := c.Write(request); err != nil {
		return 0, nil, err
	}
	return c.answer()
}

// answer reads one answer.
func (c *conn) answer() (status int, body []byte, err error) {
	line, err := c.reader.ReadSlice('\n')
	if err != nil {
		return 0, nil, err
	}
	if len(line) < 12 || string(line[:9]) != "HTTP/1.1 " {
		return 0, nil, fmt.Errorf("not an HTTP/1.1 answer: %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, nil, fmt.Errorf("not a status: %q", line)
	}
	length := -1
	for {
		line, err := c.reader.ReadSlice('\n')
		if err != nil {
			return 0, nil, err
		}
		if len(line) <= 2 {
			break
		}
		const name = "content-length:"
		if len(line) > len(name) && bytes.EqualFold(line[:len(name)], []byte(name)) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[len(name):]))); err != nil || length < 0 || length > 1<<20 {
				return 0, nil, fmt.Errorf("Content-Length is %q", line)
			}
		}
	}
	if length < 0 {
		return 0, nil, errors.New("answer without Content-Length")
	}
	if cap(c.body) < length {
		c.body = make([]byte, length)
	}
	c.body = c.body[:length]
	if _, err := io.ReadFull(c.reader, c.body); err != nil {
		return 0, nil, err
	}
	return status, c.body, nil
}

// getRequest is a whole GET request.
func getRequest(host, path string, headers ...string) []byte {
	return []byte("GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: wxidp-bench\r\nAccept: */*\r\n" +
		headerLines(headers) + "\r\n")
}

// postRequest is a whole form POST. It reuses the memory of buf.
func postRequest(buf []byte, host, path, headers, form string) []byte {
	buf = append(buf[:0], "POST "...)
	buf = append(buf, path...)
	buf = append(buf, " HTTP/1.1\r\nHost: "...)
	buf = append(buf, host...)
	buf = append(buf, "\r\nUser-Agent: wxidp-bench\r\nAccept: */*\r\nContent-Type: application/x-www-form-urlencoded\r\n"...)
	buf = append(buf, headers...)
	buf = append(buf, "Content-Length: "...)
	buf = strconv.AppendInt(buf, int64(len(form)), 10)
	buf = append(buf, "\r\n\r\n"...)
	return append(buf, form...)
}

func headerLines(headers []string) string {
	if len(headers) == 0 {
		return ""
	}
	return strings.Join(headers, "\r\n") + "\r\n"
}

// get asks once, on a connection of its own, and wants status 200.
func get(address, path string) ([]byte, error) {
	c, err := dial(address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return nil, err
	}
	status, body, err := c.do(getRequest(address, path))
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("GET %s: status %d", path, status)
	}
	return body, err
}
