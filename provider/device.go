package provider

import (
	"context"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// Where devices and the mini-program that approves them ask, below the issuer.
const (
	PathDeviceAuthorization = "/oauth2/device_authorization" // RFC 8628 §3.1
	PathDeviceVerification  = "/device"                      // where people type user codes
	PathDeviceContext       = "/device/context"
	PathDeviceApprove       = "/device/approve"
	PathDeviceDeny          = "/device/deny"
)

// deviceRequest is a device that waits, as the page shows it to who has typed
// its user code.
type deviceRequest struct {
	Key       storage.Digest // names the ticket to approveDevice and denyDevice
	UserCode  string         // as XXXX-XXXX
	Client    *Client
	Scope     []string
	Agent     string
	Place     string
	StartedAt time.Time
	ExpiresAt time.Time
}

// DeviceAuthorization answers a device authorization request (RFC 8628 §3.1)
// with the response body.
func (p *Provider) DeviceAuthorization(ctx context.Context, req Request) ([]byte, error) {
	panic("to be written")
}

// deviceByUserCode finds the device that waits for what a person has typed. An
// unknown code is not found, and too many of them are refused with 429.
func (p *Provider) deviceByUserCode(ctx context.Context, req Request, userCode string) (deviceRequest, error) {
	panic("to be written")
}

// approveDevice lets a device in for a person who has typed its user code and
// agreed.
func (p *Provider) approveDevice(ctx context.Context, req Request, key storage.Digest, by approver) error {
	panic("to be written")
}

// denyDevice turns a device away. userID is who does.
func (p *Provider) denyDevice(ctx context.Context, req Request, key storage.Digest, userID string) error {
	panic("to be written")
}

// DeviceContext shows the user of a mini-program who asks: the response body
// says it of the form's ticket. The access token comes in the Authorization
// header and has the scope device.approve.
func (p *Provider) DeviceContext(ctx context.Context, req Request) ([]byte, error) {
	panic("to be written")
}

// DeviceApprove approves the form's ticket with the number from the other
// screen.
func (p *Provider) DeviceApprove(ctx context.Context, req Request) ([]byte, error) {
	panic("to be written")
}

// DeviceDeny turns the form's ticket down.
func (p *Provider) DeviceDeny(ctx context.Context, req Request) ([]byte, error) {
	panic("to be written")
}
