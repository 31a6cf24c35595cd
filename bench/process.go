package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// process is a child of the benchmark.
type process struct {
	cmd    *exec.Cmd
	done   chan struct{} // closed when it has ended
	err    error         // after done
	killed bool
}

// start runs a program on a core, with GOMAXPROCS set to procs. Its standard
// output goes to stdout.
func start(pin bool, core, procs int, stdout io.Writer, name string, args ...string) (*process, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(procs))
	cmd.Stdout, cmd.Stderr = stdout, os.Stderr
	var err error
	if pin {
		err = startPinned(cmd, core)
	} else {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// cpu is a clock of this process alone.
func (p *process) cpu() (own, database time.Duration, err error) {
	own, err = cpuTime(p.pid())
	return own, 0, err
}

// stop asks the process to end, and makes it after ten seconds.
func (p *process) stop() error {
	if p.killed {
		return nil
	}
	select {
	case <-p.done:
		return fmt.Errorf("process %d ended by itself: %w", p.pid(), errors.Join(p.err, errors.New("before it was told to")))
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may just have ended
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	return nil
}

// kill ends the process at once; stop has nothing to do then.
func (p *process) kill() error {
	p.killed = true
	err := p.cmd.Process.Kill()
	<-p.done
	return err
}

// child is the benchmark's own program in another role.
type child struct {
	*process
	out *bufio.Reader
	in  io.Closer
}

// startChild runs this program as "-child role" on the server's core. It ends
// by itself when the benchmark does, because its standard input closes.
func startChild(o *options, input io.Reader, role string, args ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	stdin, feed, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, reader.Close(), writer.Close())
	}
	cmd := exec.Command(self, append([]string{"-child", role}, args...)...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(o.procs))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, writer, os.Stderr
	if o.pin {
		err = startPinned(cmd, coreOfServer)
	} else {
		err = cmd.Start()
	}
	err = errors.Join(err, stdin.Close(), writer.Close())
	if err != nil {
		return nil, errors.Join(err, reader.Close(), feed.Close())
	}
	c := &child{process: &process{cmd: cmd, done: make(chan struct{})}, out: bufio.NewReader(reader), in: feed}
	go func() {
		c.err = cmd.Wait()
		close(c.done)
	}()
	if input != nil {
		if _, err := io.Copy(feed, input); err != nil {
			return nil, errors.Join(err, c.stop())
		}
		c.in = nil
		if err := feed.Close(); err != nil {
			return nil, errors.Join(err, c.stop())
		}
	}
	return c, nil
}

// say prints one line of JSON for the parent.
func say(value any) error {
	line, err := json.Marshal(value)
	if err != nil {
		return err
	}
	_, err = fmt.Printf("%s\n", line)
	return err
}

// hear reads one line of JSON that a child said.
func (c *child) hear(ctx context.Context, value any) error {
	heard := make(chan error, 1)
	go func() {
		line, err := c.out.ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(line, value)
		}
		heard <- err
	}()
	select {
	case err := <-heard:
		return err
	case <-ctx.Done():
		return errors.Join(ctx.Err(), c.stop())
	case <-time.After(2 * maxSeconds * time.Second):
		return errors.Join(errors.New("a child says nothing"), c.stop())
	}
}

// end closes the child's input and waits for it.
func (c *child) end() error {
	if c.in != nil {
		_ = c.in.Close()
	}
	select {
	case <-c.done:
		return c.err
	case <-time.After(10 * time.Second):
		return c.stop()
	}
}
