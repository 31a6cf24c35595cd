package provider

// ScanView placeholder until the scan part is merged.
type ScanView struct{}
