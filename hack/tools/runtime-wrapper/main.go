// Command runtime-wrapper stands in front of runc on machines that cannot grant CAP_SYS_RESOURCE, even to root.
//
// There runc fails with "unable to apply caps" for every privileged container. The wrapper removes that capability, and
// a negative oomScoreAdj (which needs it), from the bundle's config.json on create and run and from the --process file
// on exec, then becomes the real runc. Everything else passes through untouched.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const missing = "CAP_SYS_RESOURCE"

var realRunc = []string{"/usr/sbin/runc", "/usr/bin/runc"}

func main() {
	if file, key := target(os.Args[1:]); file != "" {
		if err := rewrite(file, key); err != nil {
			fail(err)
		}
	}
	for _, path := range realRunc {
		if _, err := os.Stat(path); err == nil {
			fail(syscall.Exec(path, append([]string{path}, os.Args[1:]...), os.Environ()))
		}
	}
	fail(fmt.Errorf("no runc at %s", strings.Join(realRunc, " or ")))
}

// target returns the JSON file that the command will read, and under which key the process lies in it ("" = top level).
func target(args []string) (file, key string) {
	command := ""
	values := map[string]string{}
	for i := 0; i < len(args); i++ {
		name, value, joined := strings.Cut(args[i], "=")
		switch name {
		case "--bundle", "-b", "--process", "-p":
			if !joined && i+1 < len(args) {
				i++
				value = args[i]
			}
			values[strings.TrimLeft(name, "-")[:1]] = value
		case "create", "run", "exec":
			if command == "" {
				command = name
			}
		}
	}
	switch {
	case command == "exec":
		return values["p"], ""
	case command != "":
		bundle := values["b"]
		if bundle == "" {
			bundle = "."
		}
		return filepath.Join(bundle, "config.json"), "process"
	}
	return "", ""
}

func rewrite(file, key string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var document map[string]any
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber() // memory limits do not fit a float64
	if err := decoder.Decode(&document); err != nil {
		return err
	}
	process := document
	if key != "" {
		inner, ok := document[key].(map[string]any)
		if !ok {
			return nil
		}
		process = inner
	}
	if sets, ok := process["capabilities"].(map[string]any); ok {
		for name, list := range sets {
			if entries, ok := list.([]any); ok {
				kept := make([]any, 0, len(entries))
				for _, entry := range entries {
					if entry != missing {
						kept = append(kept, entry)
					}
				}
				sets[name] = kept
			}
		}
	}
	if score, ok := process["oomScoreAdj"].(json.Number); ok && strings.HasPrefix(score.String(), "-") {
		delete(process, "oomScoreAdj")
	}
	raw, err = json.Marshal(document)
	if err != nil {
		return err
	}
	return os.WriteFile(file, raw, 0o600)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "runtime-wrapper:", err)
	os.Exit(1)
}
