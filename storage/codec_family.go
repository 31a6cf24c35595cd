package storage

import "encoding/binary"

// The second version has what the first has, and then what only families of
// browsers have.
const (
	familyVersion        = 1
	browserFamilyVersion = 2
)

// EncodeFamily returns the stored form of a family without its id, which is
// the key it is stored under.
func EncodeFamily(f *Family) []byte {
	b := make([]byte, 0, 384) // what a usual family takes
	version := byte(familyVersion)
	if f.ofBrowser() {
		version = browserFamilyVersion
	}
	b = append(b, version)
	b = appendString(b, f.UserID)
	b = appendString(b, f.ClientID)
	b = append(b, f.Secret[:]...)
	b = binary.BigEndian.AppendUint32(b, f.Generation)
	b = binary.BigEndian.AppendUint32(b, f.MACKeyID)
	b = binary.BigEndian.AppendUint32(b, f.UserEpoch)
	b = binary.BigEndian.AppendUint32(b, f.ClientEpoch)
	b = appendTime(b, f.CreatedAt)
	b = appendTime(b, f.RotatedAt)
	b = appendTime(b, f.IdleExpiresAt)
	b = appendTime(b, f.ExpiresAt)
	b = appendTime(b, f.RevokedAt)
	b = appendTime(b, f.AuthTime)
	b = appendString(b, f.RevokedFor)
	b = appendDigest(b, f.Identity)
	b = appendString(b, f.WeChatAppID)
	b = appendStrings(b, f.Scope)
	b = appendStrings(b, f.Audience)
	b = appendStrings(b, f.AMR)
	b = appendString(b, f.DPoPThumbprint)
	if version == familyVersion {
		return b
	}
	b = append(b, f.LoginID[:]...)
	b = appendBool(b, f.Offline)
	b = appendString(b, f.ACR)
	b = appendStrings(b, f.IDTokenClaims)
	return appendStrings(b, f.UserInfoClaims)
}

// ofBrowser reports whether the family has what the first version has no room
// for.
func (f *Family) ofBrowser() bool {
	return !f.LoginID.IsZero() || f.Offline || f.ACR != "" || len(f.IDTokenClaims) > 0 || len(f.UserInfoClaims) > 0
}

// DecodeFamily reads what EncodeFamily wrote and keeps nothing of data. It
// returns ErrCorrupt for anything else.
func DecodeFamily(id FamilyID, data []byte) (Family, error) {
	r := reader{data: data, text: string(data)}
	version := r.byte()
	r.bad = version != familyVersion && version != browserFamilyVersion
	f := Family{ID: id, UserID: r.string(), ClientID: r.string()}
	copy(f.Secret[:], r.take(len(f.Secret)))
	f.Generation = r.uint32()
	f.MACKeyID = r.uint32()
	f.UserEpoch = r.uint32()
	f.ClientEpoch = r.uint32()
	f.CreatedAt = r.time()
	f.RotatedAt = r.time()
	f.IdleExpiresAt = r.time()
	f.ExpiresAt = r.time()
	f.RevokedAt = r.time()
	f.AuthTime = r.time()
	f.RevokedFor = r.string()
	f.Identity = r.digest()
	f.WeChatAppID = r.string()
	f.Scope = r.strings()
	f.Audience = r.strings()
	f.AMR = r.strings()
	f.DPoPThumbprint = r.string()
	if version == browserFamilyVersion {
		copy(f.LoginID[:], r.take(len(f.LoginID)))
		f.Offline = r.bool()
		f.ACR = r.string()
		f.IDTokenClaims = r.strings()
		f.UserInfoClaims = r.strings()
		r.bad = r.bad || !f.ofBrowser()
	}
	if err := r.end(); err != nil {
		return Family{}, err
	}
	return f, nil
}
