//go:build !linux

package main

// serviceManager stands for nobody: only Linux has one that is told.
type serviceManager struct{}

func findServiceManager() serviceManager { return serviceManager{} }

func (serviceManager) ready(string) error { return nil }
func (serviceManager) stopping() error    { return nil }
func (serviceManager) reloading() error   { return nil }
