package config

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// exampleEnv are the variables that config.example.yaml names.
var exampleEnv = []string{"WECHAT_SECRET=0123456789abcdef0123456789abcdef", "ORDERS_API_SECRET=" + strong}

func readExample(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile("../config.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestExampleLoadsAndShowsTheDefaults(t *testing.T) {
	f := newFolder(t)
	path := f.write("config.yaml", string(readExample(t)), 0o644)
	loaded, err := Load(path, exampleEnv)
	if err != nil {
		t.Fatalf("config.example.yaml:\n%v", err)
	}
	got := *loaded.Config
	if len(got.Clients) != 2 || len(got.WeChat.Apps) != 1 {
		t.Errorf("%d clients, %d apps", len(got.Clients), len(got.WeChat.Apps))
	}
	got.Clients, got.WeChat.Apps = nil, nil
	want := f.mustLoad(issuerLine)
	for _, list := range []*[]netip.Prefix{&got.TrustedProxies, &got.BackchannelLogout.AllowedNetworks} {
		if len(*list) == 0 {
			*list = nil // [] in the example
		}
	}
	if !reflect.DeepEqual(&got, want) {
		t.Errorf("a value that is shown is not the default:\ngot  %+v\nwant %+v", &got, want)
	}
}

// TestExampleClientsLoad tries the clients that are commented out.
func TestExampleClientsLoad(t *testing.T) {
	f := newFolder(t)
	f.write("secrets/shop-web", strong, 0o600)
	text := string(readExample(t))
	for _, name := range []string{"shop-web", "shop-tv"} {
		before, after, found := strings.Cut(text, "  # - client_id: "+name+"\n")
		if !found {
			t.Fatalf("%s is not shown", name)
		}
		lines, rest, _ := strings.Cut(after, "\n\n")
		text = before + "  - client_id: " + name + "\n" + regexp.MustCompile(`(?m)^  #   `).ReplaceAllString(lines, "    ") + "\n\n" + rest
	}
	c := f.mustLoad(text, exampleEnv...)
	if len(c.Clients) != 4 || !slices.Contains(c.Clients[2].GrantTypes, GrantAuthorizationCode) || !slices.Contains(c.Clients[3].GrantTypes, GrantDeviceCode) {
		t.Errorf("clients are %+v", c.Clients)
	}
}

// keyLine finds a key in the example, in force or commented out.
func keyLine(lines []string, key string) int {
	pattern := regexp.MustCompile(`^ *(# +)?(- )?` + key + `:( |$)`)
	return slices.IndexFunc(lines, pattern.MatchString)
}

func TestExampleShowsEveryKeyInOrder(t *testing.T) {
	data := readExample(t)
	lines := strings.Split(string(data), "\n")
	var check func(typ reflect.Type, path string)
	check = func(typ reflect.Type, path string) {
		for _, f := range fields(typ) {
			p := join(path, f.key)
			if keyLine(lines, f.key) < 0 {
				t.Errorf("%s is not shown", p)
			}
			switch {
			case isSection(f.typ):
				check(f.typ, p)
			case f.typ.Kind() == reflect.Slice && isSection(f.typ.Elem()):
				check(f.typ.Elem(), p)
			}
		}
	}
	check(reflect.TypeFor[Config](), "")

	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		t.Fatal(err)
	}
	var order func(n *yaml.Node, typ reflect.Type, path string)
	order = func(n *yaml.Node, typ reflect.Type, path string) {
		last, keys := -1, fields(typ)
		for i := 0; i < len(n.Content); i += 2 {
			f, known := fieldOf(keys, n.Content[i])
			if !known || f.index < last {
				t.Errorf("line %d: %s is out of the order of the struct", n.Content[i].Line, join(path, n.Content[i].Value))
			}
			last = f.index
			if isSection(f.typ) {
				order(n.Content[i+1], f.typ, f.key)
			}
		}
	}
	order(document.Content[0], reflect.TypeFor[Config](), "")
}

// TestCommentsStateTheDefaults holds the manual, which is the comments of the
// fields, against Default.
func TestCommentsStateTheDefaults(t *testing.T) {
	defaults := map[string]string{}
	var collect func(v reflect.Value)
	collect = func(v reflect.Value) {
		for _, f := range fields(v.Type()) {
			value := v.Field(f.index)
			if isSection(f.typ) {
				collect(value)
				continue
			}
			text := fmt.Sprint(value.Interface())
			if d, ok := value.Interface().(time.Duration); ok {
				text = regexp.MustCompile(`([hm])0[ms](0s)?$`).ReplaceAllString(d.String(), "$1")
			}
			defaults[v.Type().Name()+"."+v.Type().Field(f.index).Name] = text
		}
	}
	collect(reflect.ValueOf(Default()).Elem())

	stated := regexp.MustCompile(`Default (\S+)\.(\s|$)`)
	found := 0
	inspect := func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		section, ok := spec.Type.(*ast.StructType)
		if !ok {
			return true
		}
		for _, f := range section.Fields.List {
			name := spec.Name.Name + "." + f.Names[0].Name
			if f.Doc.Text() == "" {
				t.Errorf("%s has no comment", name)
			}
			want, inForce := defaults[name]
			m := stated.FindStringSubmatch(strings.Join(strings.Fields(f.Doc.Text()), " "))
			switch {
			case m == nil && inForce && want != "" && want != "[]" && want != "***":
				t.Errorf("%s does not state its default %s", name, want)
			case m != nil && m[1] != want:
				t.Errorf("%s states the default %s, it is %s", name, m[1], want)
			case m != nil:
				found++
			}
		}
		return true
	}
	for _, name := range []string{"config.go", "browser.go", "limits.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, inspect)
	}
	if found < 46 {
		t.Errorf("only %d defaults were found in the comments", found)
	}
}

func TestInitFileLoads(t *testing.T) {
	f := newFolder(t)
	f.write("secret", "0123456789abcdef", 0o600)
	f.write("strong", strong, 0o600)
	for name, p := range map[string]InitParams{
		"nothing given": {},
		"all given": {Issuer: "https://id.example.com/a", Listen: "127.0.0.1:1", AdminListen: "[::1]:2", WeChatBaseURL: "http://127.0.0.1:3",
			AppID: "wxfedcba9876543210", AppSecretFile: f.path("secret"), ClientID: "my-mini", Audience: "https://api.example.com/\"quoted\""},
	} {
		t.Run(name, func(t *testing.T) {
			c := f.mustLoad(string(InitFile(p)), exampleEnv...)
			if p.Issuer == "" {
				p = InitParams{Issuer: "http://127.0.0.1:8080", Listen: "127.0.0.1:8080", AdminListen: "127.0.0.1:8081",
					WeChatBaseURL: "https://api.weixin.qq.com", AppID: "wx0123456789abcdef", ClientID: "shop-mini", Audience: "https://api.shop.example"}
			}
			got := InitParams{Issuer: c.Issuer, Listen: c.Listen, AdminListen: c.Admin.Listen, WeChatBaseURL: c.WeChat.BaseURL,
				AppID: c.Clients[0].WeChatAppID, AppSecretFile: c.WeChat.Apps[0].SecretFile, ClientID: c.Clients[0].ClientID, Audience: c.Clients[0].Audience[0]}
			if got != p {
				t.Errorf("got  %+v\nwant %+v", got, p)
			}
		})
	}
	demo := f.mustLoad(string(InitFile(InitParams{AppSecretFile: f.path("secret"), OpenPlatform: "main", IntrospectionSecretFile: f.path("strong"),
		Demo: &InitDemo{AppID: "wx2", AppSecretFile: f.path("secret"), ClientID: "second", WebSecretFile: f.path("strong")}})), exampleEnv...)
	if len(demo.WeChat.Apps) != 2 || demo.WeChat.Apps[1].OpenPlatform != "main" || len(demo.Clients) != 5 || demo.Clients[1].WeChatAppID != "wx2" ||
		demo.Scan.AppID != demo.Clients[0].WeChatAppID || !slices.Contains(demo.Clients[0].Scopes, ScopeDeviceApprove) || len(demo.Clients[2].SecretHashes) != 1 {
		t.Errorf("the demonstration: %+v", demo)
	}
	demo = f.mustLoad(string(InitFile(InitParams{AppSecretFile: f.path("secret"), Demo: &InitDemo{AppID: "wx2", AppSecretFile: f.path("secret"), ClientID: "second"}})), exampleEnv...)
	if len(demo.Clients) != 3 {
		t.Errorf("the demonstration without a web application: %+v", demo.Clients)
	}
	// What looks like YAML in a parameter stays a value.
	if _, err := f.load(string(InitFile(InitParams{ClientID: "a\n    introspection: true"})), exampleEnv...); err == nil {
		t.Error("a parameter broke out of its value")
	}
	// The client that is commented out is right, too.
	full := strings.ReplaceAll(string(InitFile(InitParams{})), "  # - client_id", "  - client_id")
	full = strings.ReplaceAll(full, "  #   ", "    ")
	if c := f.mustLoad(full, exampleEnv...); len(c.Clients) != 2 || !c.Clients[1].Introspection {
		t.Errorf("clients are %+v", c.Clients)
	}
}
