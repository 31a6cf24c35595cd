// No Go here: this keeps `go ./...` out of node_modules.
module ignored
