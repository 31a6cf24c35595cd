package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/wxidp/wxidp/config"
	"github.com/wxidp/wxidp/internal/seal"
)

// The tests of this file hold deploy/ and the Dockerfile against the program:
// what they name must exist, and what they promise must add up.

func readDeploy(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// object is a mapping of a YAML document.
type object map[string]any

func parseObjects(t *testing.T, name string) (objects []object) {
	t.Helper()
	decoder := yaml.NewDecoder(strings.NewReader(readDeploy(t, name)))
	for {
		var o object
		err := decoder.Decode(&o)
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		objects = append(objects, o)
	}
}

// at returns what is below a path of keys and, in lists, of 0.
func (o object) at(t *testing.T, path ...string) any {
	t.Helper()
	var value any = o
	for _, key := range path {
		switch v := value.(type) {
		case object:
			value = v[key]
		case []any:
			value = v[0]
		default:
			value = nil
		}
		if value == nil {
			t.Fatalf("there is no %s", strings.Join(path, "."))
		}
	}
	return value
}

func words(list any) (out []string) {
	for _, word := range list.([]any) {
		out = append(out, word.(string))
	}
	return out
}

// checkUsage fails where the program has no such command or flag.
func checkUsage(t *testing.T, where string, args []string) {
	t.Helper()
	cmd, rest, err := rootCommand().Find(args)
	if err != nil || !cmd.Runnable() || cmd.HasSubCommands() {
		t.Errorf("%s: %v is no command (%v)", where, args, err)
		return
	}
	if err := errors.Join(cmd.ParseFlags(rest), cmd.ValidateArgs(cmd.Flags().Args())); err != nil {
		t.Errorf("%s: %v: %v", where, args, err)
	}
}

func seconds(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// ending is how long a server with this --drain takes at most until it ends.
func ending(drain time.Duration) time.Duration { return drain + settleTime + shutdownBudget }

func defaultDrain(t *testing.T) time.Duration {
	t.Helper()
	return seconds(t, serveCommand().Flags().Lookup("drain").DefValue)
}

// loadDeployed loads a configuration whose secrets are in the folder mounted,
// and returns their names.
func loadDeployed(t *testing.T, name, mounted string, env ...string) (*config.Config, []string) {
	t.Helper()
	text, dir := readDeploy(t, name), t.TempDir()
	var names []string
	for _, found := range regexp.MustCompile(regexp.QuoteMeta(mounted)+`/([\w.-]+)`).FindAllStringSubmatch(text, -1) {
		if slices.Contains(names, found[1]) {
			continue
		}
		names = append(names, found[1])
		content := seal.GenerateKey() + "\n"
		if strings.HasSuffix(found[1], "dsn") {
			content = "postgres://wxidp@db.example.com/wxidp\n"
		}
		if err := os.WriteFile(filepath.Join(dir, found[1]), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, mounted, dir)), 0o644); err != nil {
		t.Fatal(err)
	}
	loaded, err := config.Load(path, env)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if _, err := loaded.MasterKeys(); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	if c := loaded.Config; c.Storage.Driver != config.DriverPostgres || len(c.Clients) == 0 || len(c.Insecure.Enabled()) > 0 {
		t.Errorf("%s is no configuration for nodes on PostgreSQL", name)
	}
	slices.Sort(names)
	return loaded.Config, names
}

func port(t *testing.T, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestDockerfile(t *testing.T) {
	text := strings.ReplaceAll(readDeploy(t, "Dockerfile"), "\\\n", " ")
	find := func(pattern string) string {
		t.Helper()
		found := regexp.MustCompile(`(?m)` + pattern).FindStringSubmatch(text)
		if found == nil {
			t.Fatalf("the Dockerfile has no %s", pattern)
		}
		return found[1]
	}
	execForm := func(text string) (args []string) {
		t.Helper()
		if err := yaml.Unmarshal([]byte(text), &args); err != nil {
			t.Fatal(err)
		}
		return args
	}
	entry := execForm(find(`^ENTRYPOINT (\[.*\])$`))
	checkUsage(t, "CMD", execForm(find(`^CMD (\[.*\])$`)))
	health := execForm(find(`^HEALTHCHECK .* CMD (\[.*\])$`))
	if len(entry) != 1 || health[0] != entry[0] || !strings.Contains(text, "-o /out"+entry[0]+" ") {
		t.Errorf("ENTRYPOINT %v and HEALTHCHECK %v are not the binary that was built", entry, health)
	}
	checkUsage(t, "HEALTHCHECK", health[1:])
	if got := seconds(t, find(`^HEALTHCHECK .*--timeout=(\w+)`)); got <= healthTimeout {
		t.Errorf("HEALTHCHECK ends the command after %s, which takes up to %s", got, healthTimeout)
	}
	defaults := config.Default()
	if got, want := find(`^EXPOSE (.*)$`), port(t, defaults.Listen)+" "+port(t, defaults.Admin.Listen); got != want {
		t.Errorf("EXPOSE %s, want %s", got, want)
	}
	if user := find(`^USER (.*)$`); user != "65532:65532" || !strings.Contains(text, "chown "+user+" /out"+find(`^VOLUME (.*)$`)+"\n") {
		t.Errorf("the volume does not belong to the user %s", user)
	}
	goMod := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(readDeploy(t, "go.mod"))[1]
	if image := find(`^ARG GO_VERSION=(.*)$`); image != goMod && !strings.HasPrefix(image, goMod+".") {
		t.Errorf("the image builds with Go %s, go.mod says %s", image, goMod)
	}
	if !strings.Contains(text, "-X main.buildVersion=") {
		t.Error("the image does not know its version")
	}

	// The context holds all that the binary is built from.
	out, err := exec.Command("go", "list", "-deps", "-f", "{{.ImportPath}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	ignore := readDeploy(t, ".dockerignore")
	for _, path := range strings.Fields(string(out)) {
		if ours, ok := strings.CutPrefix(path, "github.com/wxidp/wxidp/"); ok {
			if folder, _, _ := strings.Cut(ours, "/"); !strings.Contains(ignore, "\n!"+folder+"\n") {
				t.Errorf(".dockerignore leaves %s out", folder)
			}
		}
	}
}

func TestSystemdUnit(t *testing.T) {
	settings := map[string][]string{}
	for line := range strings.Lines(readDeploy(t, "deploy/systemd/wxidp.service")) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			settings[key] = append(settings[key], value)
		}
	}
	checkUsage(t, "ExecStart", strings.Fields(settings["ExecStart"][0])[1:])
	if got := seconds(t, settings["TimeoutStopSec"][0]+"s"); got <= ending(defaultDrain(t)) {
		t.Errorf("TimeoutStopSec=%s, but the server may take %s", got, ending(defaultDrain(t)))
	}
	// What it sets by the environment are keys, and win over the file.
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("config.yaml", "issuer: https://id.example.com\n", 0o600)
	for _, credential := range settings["LoadCredential"] {
		name, _, _ := strings.Cut(credential, ":")
		write(name, seal.GenerateKey(), 0o400)
	}
	var env []string
	for _, line := range settings["Environment"] {
		for _, pair := range strings.Fields(line) {
			env = append(env, strings.ReplaceAll(pair, "%d", dir))
		}
	}
	loaded, err := config.Load(filepath.Join(dir, "config.yaml"), env)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := loaded.MasterKeys(); err != nil {
		t.Error(err)
	}
	c := loaded.Config
	if want := "/run/" + settings["RuntimeDirectory"][0]; filepath.Dir(c.Admin.Socket) != want {
		t.Errorf("the socket %s is not in %s", c.Admin.Socket, want)
	}
	if want := "/var/lib/" + settings["StateDirectory"][0]; filepath.Dir(c.Storage.Bolt.Path) != want {
		t.Errorf("the data file %s is not in %s", c.Storage.Bolt.Path, want)
	}
	if settings["StateDirectoryMode"][0] != "0700" || settings["Type"][0] != "notify" {
		t.Error("the folder of the data file must have mode 0700, and the server says itself when it is ready")
	}
	for line := range strings.Lines(readDeploy(t, "deploy/systemd/wxidp.sysusers")) {
		if fields := strings.Fields(line); fields[0] == "u" && fields[1] != settings["User"][0] {
			t.Errorf("sysusers makes %s, the unit runs as %s", fields[1], settings["User"][0])
		}
	}
}

func TestComposeFile(t *testing.T) {
	compose := parseObjects(t, "deploy/compose/compose.yaml")[0]
	c, secrets := loadDeployed(t, "deploy/compose/wxidp/config.yaml", "/run/secrets")
	node := func(path ...string) any { return compose.at(t, append([]string{"x-node"}, path...)...) }
	mounted := words(node("secrets"))
	slices.Sort(mounted)
	if !slices.Equal(mounted, secrets) {
		t.Errorf("the nodes have the secrets %v, config.yaml names %v", mounted, secrets)
	}
	setup := readDeploy(t, "deploy/compose/setup.sh")
	for name, secret := range compose.at(t, "secrets").(object) {
		if file := secret.(object)["file"]; file != "./secrets/"+name || !strings.Contains(setup, "| give "+name+" ") && !strings.Contains(setup, " give "+name+" ") {
			t.Errorf("setup.sh does not make %v", file)
		}
	}
	subnet := netip.MustParsePrefix(compose.at(t, "networks", "front", "ipam", "config", "0", "subnet").(string))
	if !slices.Equal(c.TrustedProxies, []netip.Prefix{subnet}) {
		t.Errorf("config.yaml trusts %v, the balancer is in %v", c.TrustedProxies, subnet)
	}
	if mode := words(node("tmpfs"))[0]; !strings.HasPrefix(mode, filepath.Dir(c.Admin.Socket)+":") {
		t.Errorf("the socket %s is not in %s", c.Admin.Socket, mode)
	}
	if got := seconds(t, node("stop_grace_period").(string)); got <= ending(defaultDrain(t)) {
		t.Errorf("a node is killed after %s, but may take %s", got, ending(defaultDrain(t)))
	}
	if c.Admin.Listen != config.Default().Admin.Listen {
		t.Errorf("HEALTHCHECK does not ask at %s", c.Admin.Listen)
	}
	checkUsage(t, "migrate", words(compose.at(t, "services", "migrate", "command")))

	haproxy, nginx := readDeploy(t, "deploy/balancer/haproxy.cfg"), readDeploy(t, "deploy/balancer/nginx.conf")
	nodes := 0
	for name := range compose.at(t, "services").(object) {
		if strings.HasPrefix(name, "wxidp-") {
			nodes++
			address := name + ":" + port(t, c.Listen)
			if !strings.Contains(haproxy, "server "+name+" "+address+"\n") || !strings.Contains(nginx, "server "+address+" ") {
				t.Errorf("the balancers do not know %s", address)
			}
		}
	}
	if nodes < 2 || strings.Contains(regexp.MustCompile(`(?m)#.*$`).ReplaceAllString(nginx, ""), "non_idempotent") {
		t.Errorf("%d nodes; nginx must not send a POST twice", nodes)
	}
}

func TestKubernetesManifests(t *testing.T) {
	const dir = "deploy/kubernetes/"
	c, secrets := loadDeployed(t, dir+"config.yaml", "/etc/wxidp/secrets")
	deployment := parseObjects(t, dir+"deployment.yaml")[0]
	pod := deployment.at(t, "spec", "template", "spec").(object)
	container := pod.at(t, "containers", "0").(object)
	args := words(container.at(t, "args"))
	checkUsage(t, "deployment", args)
	drain := seconds(t, args[slices.Index(args, "--drain")+1])
	if grace := time.Duration(pod.at(t, "terminationGracePeriodSeconds").(int)) * time.Second; grace <= ending(drain) {
		t.Errorf("a pod is killed after %s, but may take %s", grace, ending(drain))
	}
	ports := map[string]string{}
	for _, p := range container.at(t, "ports").([]any) {
		ports[p.(object)["name"].(string)] = yamlText(t, p.(object)["containerPort"])
	}
	if ports["http"] != port(t, c.Listen) || ports["admin"] != port(t, c.Admin.Listen) {
		t.Errorf("the ports %v are not those of config.yaml", ports)
	}
	for probe, path := range map[string]string{"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"} {
		if get := container.at(t, probe, "httpGet").(object); get["path"] != path || get["port"] != "admin" {
			t.Errorf("%s asks %v", probe, get)
		}
	}
	mounts := map[string]string{}
	for _, m := range container.at(t, "volumeMounts").([]any) {
		mounts[m.(object)["name"].(string)] = m.(object)["mountPath"].(string)
	}
	if args[slices.Index(args, "--config")+1] != mounts["config"]+"/config.yaml" || mounts["secrets"] != "/etc/wxidp/secrets" || mounts["run"] != filepath.Dir(c.Admin.Socket) {
		t.Errorf("config.yaml and the mounts %v do not fit", mounts)
	}
	job := parseObjects(t, dir+"migrate/job.yaml")[0].at(t, "spec", "template", "spec", "containers", "0").(object)
	checkUsage(t, "job", words(job.at(t, "args")))
	for _, folder := range []string{dir, dir + "migrate/"} {
		for _, name := range words(parseObjects(t, folder+"kustomization.yaml")[0].at(t, "resources")) {
			for _, o := range parseObjects(t, folder+name) {
				o.at(t, "apiVersion")
				o.at(t, "metadata", "name")
			}
		}
	}
	// The documents make the Secret with all that config.yaml names.
	for _, doc := range []string{"docs/deployment.md", "docs/deployment.zh-CN.md"} {
		text := readDeploy(t, doc)
		for _, name := range secrets {
			if !strings.Contains(text, "--from-file="+name) {
				t.Errorf("%s makes no Secret with %s", doc, name)
			}
		}
	}
}

func yamlText(t *testing.T, value any) string {
	t.Helper()
	raw, err := yaml.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(raw))
}

// TestDeploymentDocuments: what both languages tell is the same, and the files
// they point to are there.
func TestDeploymentDocuments(t *testing.T) {
	link := regexp.MustCompile(`\]\(\.\./(deploy[^)#]*)\)`)
	command := regexp.MustCompile(`(?m)^\s*(?:sudo (?:-u \w+ )?|docker compose [^\n]*/bin/|docker exec wxidp /bin/|kubectl [^\n]*/bin/)?wxidp ((?:migrate|check|keys|init|health)\b[^\n#>\\)]*)`)
	fence := regexp.MustCompile("(?ms)^```(?:sh|yaml)\n(.*?)^```$")
	for _, doc := range []string{"docs/deployment", "docs/postgresql"} {
		english, chinese := readDeploy(t, doc+".md"), readDeploy(t, doc+".zh-CN.md")
		code := [2]int{}
		for i, text := range []string{english, chinese} {
			for _, found := range link.FindAllStringSubmatch(text, -1) {
				if _, err := os.Stat(filepath.Join("..", "..", found[1])); err != nil {
					t.Errorf("%s: %v", doc, err)
				}
			}
			for _, block := range fence.FindAllStringSubmatch(text, -1) {
				code[i]++
				for _, found := range command.FindAllStringSubmatch(block[1], -1) {
					checkUsage(t, doc, strings.Fields(found[1]))
				}
			}
		}
		if code[0] != code[1] || code[0] == 0 || strings.Count(english, "\n## ") != strings.Count(chinese, "\n## ") || strings.Count(english, "\n|") != strings.Count(chinese, "\n|") {
			t.Errorf("%s: the languages differ: %d and %d blocks of code", doc, code[0], code[1])
		}
	}
}
