package config

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// watched runs a Watcher over a folder and notes what it reports.
type watched struct {
	folder
	*Watcher

	mu      sync.Mutex
	reloads []*Config
	rejects []error
	refuse  error // of the one who would apply
}

func watch(t *testing.T, text string, env ...string) *watched {
	t.Helper()
	w := &watched{folder: newFolder(t)}
	loaded, err := w.load(text, env...)
	if err != nil {
		t.Fatal(err)
	}
	w.follow(loaded)
	return w
}

func (w *watched) follow(loaded *Loaded) {
	w.Watcher = &Watcher{
		Loaded: loaded,
		OnReload: func(next *Config) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.refuse != nil {
				return w.refuse
			}
			w.reloads = append(w.reloads, next)
			return nil
		},
		OnReject: func(err error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.rejects = append(w.rejects, err)
		},
	}
}

// expect checks how many reloads and refusals there were by now.
func (w *watched) expect(when string, reloads, rejects int) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.reloads) != reloads || len(w.rejects) != rejects {
		w.t.Fatalf("%s: %d reloads and %d refusals %v, want %d and %d", when, len(w.reloads), len(w.rejects), w.rejects, reloads, rejects)
	}
}

func (w *watched) last() *Config {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.reloads) == 0 {
		w.t.Fatal("nothing was reloaded")
	}
	return w.reloads[len(w.reloads)-1]
}

// inBubble runs the poll loop under a fake clock over real files.
func inBubble(t *testing.T, text string, env []string, test func(w *watched)) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, text, env...)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		synctest.Wait()
		test(w)
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
}

func TestWatcherAppliesChangesWithinASecond(t *testing.T) {
	inBubble(t, issuerLine, nil, func(w *watched) {
		time.Sleep(time.Hour)
		w.expect("unchanged", 0, 0)

		w.write("config.yaml", issuerLine+"log: {level: debug}\n", 0o600)
		time.Sleep(time.Second)
		w.expect("changed", 1, 0)
		if w.last().Log.Level != "debug" {
			t.Errorf("got %+v", w.last().Log)
		}
		time.Sleep(time.Hour)
		w.expect("and then left alone", 1, 0)
	})
}

func TestThreat87BadFilesAreRefusedOnceAndTheLastGoodStays(t *testing.T) {
	inBubble(t, issuerLine, nil, func(w *watched) {
		w.write("config.yaml", issuerLine+"log: {level: "+canary+"}\n", 0o600)
		time.Sleep(time.Second)
		w.expect("bad", 0, 1)
		if text := w.rejects[0].Error(); !strings.Contains(text, "config.yaml:2: log.level: ") || strings.Contains(text, canary) {
			t.Errorf("refused with %q", text)
		}
		time.Sleep(time.Hour)
		w.write("config.yaml", issuerLine+"log: {level: "+canary+"}\n", 0o600)
		time.Sleep(time.Hour)
		w.expect("the same bad content, written again", 0, 1)

		w.write("config.yaml", "", 0o600)
		time.Sleep(time.Second)
		w.expect("otherwise bad", 0, 2)

		if err := os.Remove(w.path("config.yaml")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		w.expect("gone", 0, 3)

		w.write("config.yaml", issuerLine, 0o600)
		time.Sleep(time.Second)
		w.expect("good again, as it was", 1, 3)
	})
}

func TestWatcherGoesOnWhereNobodyCanApply(t *testing.T) {
	inBubble(t, issuerLine, nil, func(w *watched) {
		w.refuse = errors.New("no key yet")
		w.write("config.yaml", issuerLine+"log: {level: debug}\n", 0o600)
		time.Sleep(time.Second)
		w.expect("refused", 0, 1)
		// What was refused is not in force: taking it back changes nothing
		// that would need a restart, and the same file is taken once it can be.
		w.refuse = nil
		if err := w.Reload(); err != nil {
			t.Fatal(err)
		}
		w.expect("applied", 1, 1)
	})
}

func TestWatcherRefusesWhatNeedsARestart(t *testing.T) {
	inBubble(t, issuerLine, nil, func(w *watched) {
		w.write("config.yaml", "issuer: https://other.example\nlisten: 127.0.0.1:1\nlog: {level: debug}\n", 0o600)
		time.Sleep(time.Second)
		w.expect("issuer changed", 0, 1)
		var restart *RestartError
		if !errors.As(w.rejects[0], &restart) || strings.Join(restart.Keys, " ") != "issuer listen" || !strings.Contains(restart.Error(), "needs a restart: issuer, listen") {
			t.Errorf("refused with %v", w.rejects[0])
		}
		time.Sleep(time.Hour)
		w.expect("left so", 0, 1)
		w.write("config.yaml", issuerLine+"log: {level: warn}\n", 0o600)
		time.Sleep(time.Second)
		w.expect("taken back", 1, 1)
		if w.last().Log.Level != "warn" {
			t.Errorf("got %+v", w.last().Log)
		}
	})
}

func TestWatcherDoesNotTakeAFileWhileItIsWritten(t *testing.T) {
	full := issuerLine + appsSection + "clients:\n"
	for i := range 20 {
		full += fmt.Sprintf("  - {client_id: c%d, type: public, wechat_appid: wx1, grant_types: [wechat_jscode]}\n", i)
	}
	inBubble(t, full, nil, func(w *watched) {
		// In place: emptied, then a bit more between any two polls. Some of the states
		// are good files with too few clients.
		file, err := os.OpenFile(w.path("config.yaml"), os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		longer := full + "log: {level: debug}\n"
		for rest := longer; rest != ""; {
			n := min(40, len(rest))
			if _, err := file.WriteString(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
			time.Sleep(defaultInterval * 3 / 4)
			w.expect("while it is written", 0, 0)
		}
		time.Sleep(time.Second)
		w.expect("written", 1, 0)
		if len(w.last().Clients) != 20 || w.last().Log.Level != "debug" {
			t.Errorf("%d clients, %+v", len(w.last().Clients), w.last().Log)
		}
	})
}

func TestWatcherSeesTheFilesTheConfigNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFolder(t)
		f.write("v1/secret", "first-app-secret", 0o600)
		f.write("v2/secret", "other-app-secret", 0o600) // the same size
		if err := os.Symlink("v1", f.path("mounted")); err != nil {
			t.Fatal(err)
		}
		loaded, err := f.load(issuerLine + "wechat: {apps: [{appid: a, secret_file: mounted/secret}]}\n")
		if err != nil {
			t.Fatal(err)
		}
		if want := f.path("config.yaml") + " " + f.path("mounted/secret"); strings.Join(loaded.Files, " ") != want {
			t.Errorf("files are %q", loaded.Files)
		}
		w := &watched{folder: f}
		w.follow(loaded)
		w.Interval = time.Hour // cut to a second
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		synctest.Wait()

		// As Kubernetes replaces a mounted secret.
		if err := os.Symlink("v2", f.path("next")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(f.path("next"), f.path("mounted")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2500 * time.Millisecond)
		synctest.Wait()
		w.expect("other secret", 1, 0)
		if got := w.last().WeChat.Apps[0].Secret.Reveal(); got != "other-app-secret" {
			t.Errorf("secret is %q", got)
		}

		// A mode that is wrong, and then mended, with nothing else changed.
		if err := os.Chmod(f.path("v2/secret"), 0o644); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		w.expect("open secret", 1, 1)
		if err := os.Chmod(f.path("v2/secret"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		w.expect("closed again", 2, 1)

		// A file that is not there yet.
		f.write("config.yaml", issuerLine+"wechat: {apps: [{appid: a, secret_file: later}]}\n", 0o600)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		w.expect("missing secret", 2, 2)
		f.write("later", "x", 0o600)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		w.expect("there it is", 3, 2)

		// Too large stays one refusal.
		f.write("later", strings.Repeat("a", maxSmallFile+1), 0o600)
		time.Sleep(time.Minute)
		synctest.Wait()
		w.expect("too large", 3, 3)
		stop()
		<-done
	})
}

// TestWatcherTakesAMountedConfigMap replaces the config file as Kubernetes does:
// it is a link into a folder, ..data, which is a link to the folder of a version,
// and the old version is deleted.
func TestWatcherTakesAMountedConfigMap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFolder(t)
		publish := func(version, text string) {
			f.write(version+"/config.yaml", text, 0o644)
			next := f.path("..data_tmp")
			if err := errors.Join(os.Symlink(version, next), os.Rename(next, f.path("..data"))); err != nil {
				t.Fatal(err)
			}
		}
		publish("..first", issuerLine)
		if err := os.Symlink("..data/config.yaml", f.path("config.yaml")); err != nil {
			t.Fatal(err)
		}
		loaded, err := Load(f.path("config.yaml"), nil)
		if err != nil {
			t.Fatal(err)
		}
		w := &watched{folder: f}
		w.follow(loaded)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		for i, level := range []string{"debug", "error"} {
			publish(fmt.Sprint("..version", i), issuerLine+"log: {level: "+level+"}\n")
			if err := os.RemoveAll(f.path([]string{"..first", "..version0"}[i])); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			w.expect("another version", i+1, 0)
			if got := w.last().Log.Level; got != level {
				t.Errorf("level is %s, want %s", got, level)
			}
		}
		stop()
		<-done
	})
}

func TestReload(t *testing.T) {
	w := watch(t, issuerLine)
	if err := w.Reload(); err != nil {
		t.Errorf("unchanged: %v", err)
	}
	w.expect("unchanged, but asked for", 1, 0)
	w.write("config.yaml", issuerLine+"log: {level: debug}\n", 0o600)
	if err := w.Reload(); err != nil || w.last().Log.Level != "debug" {
		t.Errorf("changed: %v, %+v", err, w.last().Log)
	}
	w.write("config.yaml", "log: {}\n", 0o600)
	for range 2 {
		if err := w.Reload(); err == nil {
			t.Error("a bad file was taken")
		}
	}
	w.expect("bad, asked for twice", 2, 2)
	w.poll()
	w.poll()
	w.expect("the poll knows it already", 2, 2)
}

func TestWatcherNoticesAChangeBeforeItsStart(t *testing.T) {
	w := watch(t, issuerLine)
	w.write("config.yaml", issuerLine+"log: {level: debug}\n", 0o600)
	w.poll()
	w.expect("first poll", 0, 0)
	w.poll()
	w.expect("second poll", 1, 0)
}

func TestPollsDoNotReadOldFilesAgain(t *testing.T) {
	path := newFolder(t).write("file", "a", 0o600)
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	_, state, _ := readFile(path, 10)
	info, err := os.Stat(path)
	if err != nil || !state.untouched(info) {
		t.Error("an old file would be read again")
	}
	now := time.Now()
	if err := os.Chtimes(path, now, now); err != nil {
		t.Fatal(err)
	}
	_, state, _ = readFile(path, 10)
	if info, err = os.Stat(path); err != nil || state.untouched(info) {
		t.Error("a file that was only just written would not be read again")
	}
}

// TestWatcherUnderConcurrentUse is for the race detector: writers, signals,
// the poll loop and readers of what was handed out, with real time.
func TestWatcherUnderConcurrentUse(t *testing.T) {
	w := watch(t, issuerLine)
	w.Interval = time.Millisecond
	ctx, stop := context.WithCancel(t.Context())
	var group, writers sync.WaitGroup
	group.Go(func() { _ = w.Run(ctx) })
	for i := range 3 {
		writers.Go(func() {
			for n := range 50 {
				if i == 0 {
					text := issuerLine + "log: {level: debug}\n"
					if n%5 == 0 {
						text = "broken: ["
					}
					w.write("config.yaml", text, 0o600)
				}
				_ = w.Reload()
				w.mu.Lock()
				for _, c := range w.reloads {
					if c.Issuer != "https://id.example.com" {
						t.Error("a configuration without its issuer was handed out")
					}
				}
				w.mu.Unlock()
			}
		})
	}
	writers.Wait()
	w.write("config.yaml", issuerLine+"log: {level: error}\n", 0o600)
	if err := w.Reload(); err != nil || w.last().Log.Level != "error" {
		t.Errorf("in the end: %v", err)
	}
	stop()
	group.Wait()
}

func TestWatcherTakesImagesButNoOtherSalt(t *testing.T) {
	f := newFolder(t)
	f.write("salt", strong, 0o600)
	f.write("logo.svg", svgStart+strings.Repeat(" ", maxSmallFile)+"</svg>", 0o644)
	loaded, err := f.load(issuerLine + "tokens: {pairwise_salt_file: salt}\nbrand: {logo_file: logo.svg}\n")
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{folder: f}
	w.follow(loaded)
	f.write("logo.svg", passiveSVGs[0], 0o644)
	if err := w.Reload(); err != nil || string(w.last().Brand.Logo) != passiveSVGs[0] {
		t.Errorf("another logo: %v", err)
	}
	f.write("salt", strong+"x", 0o600)
	var restart *RestartError
	if err := w.Reload(); !errors.As(err, &restart) || !strings.Contains(err.Error(), "tokens.pairwise_salt") || strings.Contains(err.Error(), strong) {
		t.Errorf("another salt: %v", err)
	}
}
