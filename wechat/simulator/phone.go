package simulator

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// phone is a phone number: digits without any sign.
type phone struct{ country, number string }

func (p phone) e164() string { return "+" + p.country + p.number }

// full is the number as WeChat's phoneNumber has it: foreign ones with their
// country code.
func (p phone) full() string {
	if p.country == "86" {
		return p.number
	}
	return p.e164()
}

// phoneOf returns the number of a user, be he known or not. The caller holds mu.
func (s *Simulator) phoneOf(user string) phone {
	if u := s.users[user]; u != nil && u.phone.number != "" {
		return u.phone
	}
	// A mobile number of China, 11 digits from 13 to 19, as the user's name has it.
	const range9 = 1_000_000_000
	n := uint64(0)
	for _, c := range []byte(s.mac("phone", user)) {
		n = n*31 + uint64(c)
	}
	rest := strconv.FormatUint(range9+n%range9, 10)[1:]
	return phone{"86", "1" + strconv.FormatUint(3+n/range9%7, 10) + rest}
}

// PhoneNumber returns the phone number of a user: the one that SetPhone gave
// him, or one that his name and the seed make. Both are digits.
func (s *Simulator) PhoneNumber(user string) (countryCode, number string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.phoneOf(user)
	return p.country, p.number
}

// SetPhone gives a user another phone number: a country code of 1 to 4 digits
// and a number, 4 to 15 digits together.
func (s *Simulator) SetPhone(user, countryCode, number string) error {
	switch n := len(countryCode) + len(number); {
	case !digits(countryCode) || len(countryCode) > 4 || countryCode[0] == '0':
		return errors.New("country_code is 1 to 4 digits, the first not 0")
	case !digits(number) || n < 4 || n > 15:
		return errors.New("phone is digits, 4 to 15 with country_code")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.user(user)
	if err != nil {
		return err
	}
	u.phone = phone{countryCode, number}
	return nil
}

func digits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// PhoneCode does what the getPhoneNumber button does in the WeChat app: it
// returns a phone code of user for the app. An unknown user comes to be.
func (s *Simulator) PhoneCode(appid, user string) (phoneCode string, err error) {
	fresh := newPhoneCode()
	now := s.now().UnixNano()
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.member(appid, user)
	if err != nil {
		return "", err
	}
	s.phones.add(fresh, code{member: m, created: now, phone: s.phoneOf(user)})
	return fresh, nil
}

type phoneRequest struct {
	Code   string `json:"code"`
	OpenID string `json:"openid"`
}

func readPhoneRequest(body []byte) (phoneRequest, error) {
	var in phoneRequest
	err := json.Unmarshal(body, &in)
	return in, err
}

// exchangePhone answers getuserphonenumber. It checks the code against the
// openid where one is given.
func (s *Simulator) exchangePhone(c *call) {
	if c.r.Method != http.MethodPost {
		c.fail(43002)
		return
	}
	body, whole := readBody(c.r)
	in, err := readPhoneRequest(body)
	c.phoneCode = in.Code
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.authorize(c)
	switch {
	case a == nil:
		return
	case len(body) == 0:
		c.fail(44002)
		return
	case !whole || err != nil:
		c.fail(47001)
		return
	case c.force():
		return
	case in.Code == "":
		c.failHint(41008)
		return
	}
	found, ok := s.phones.items[in.Code]
	age := time.Duration(c.now.UnixNano() - found.created)
	switch {
	case ok && found.member.app != a:
		c.failHint(40013)
		return
	case !ok || found.used || age > codeLife,
		in.OpenID != "" && in.OpenID != found.member.openID:
		c.failHint(40029)
		return
	}
	found.used = true
	s.phones.items[in.Code] = found
	b := append(c.body, `{"errcode":0,"errmsg":"ok","phone_info":`...)
	b = appendPhoneInfo(b, found.phone, a.AppID, realTime(age))
	c.body = append(b, '}')
}

// realTime is when something happened that is age old by the simulated clock.
// What a backend compares with its own clock must be of the same.
func realTime(age time.Duration) int64 { return time.Now().Add(-age).Unix() }

// appendPhoneInfo appends a phone number with its watermark, in WeChat's order.
func appendPhoneInfo(b []byte, p phone, appid string, at int64) []byte {
	b = append(b, `{"phoneNumber":"`...)
	b = append(b, p.full()...)
	b = append(b, `","purePhoneNumber":"`...)
	b = append(b, p.number...)
	b = append(b, `","countryCode":"`...)
	b = append(b, p.country...)
	b = append(b, `","watermark":`...)
	b = appendWatermark(b, appid, at)
	return append(b, '}')
}

func appendWatermark(b []byte, appid string, at int64) []byte {
	b = append(b, `{"timestamp":`...)
	b = strconv.AppendInt(b, at, 10)
	b = append(b, `,"appid":"`...)
	b = appendJSON(b, appid)
	return append(b, `"}`...)
}

// failHint makes the answer an error as /wxa/business writes it.
func (c *call) failHint(errcode int) {
	c.failText(errcode, errmsgs[errcode]+" hint: ["+string(appendHint(nil))+"]")
}

func givePhone(s *Simulator, f *form) (result, error) {
	appid, user, number, country := f.text("appid"), f.text("user"), f.text("phone"), f.text("country_code")
	if err := f.done(); err != nil {
		return result{}, err
	}
	switch {
	case number == "" && country != "":
		return result{}, errors.New("country_code goes with phone")
	case number != "":
		if country == "" {
			country = "86"
		}
		if err := s.SetPhone(user, country, number); err != nil {
			return result{}, err
		}
	}
	c, err := s.PhoneCode(appid, user)
	if err != nil {
		return result{}, err
	}
	return result{value: map[string]string{"code": c}, text: c}, nil
}
