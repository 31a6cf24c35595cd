package storagetest

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"github.com/wxidp/wxidp/storage"
)

// model runs random operations against the store and against a model that is
// small enough to be seen to be right, and compares every answer.
func (s *suite) model() {
	if !s.Bubble {
		s.Skip("needs a bubble: it moves time by months")
	}
	steps, seed := cmp.Or(s.ModelSteps, 20_000), 20260101
	s.fromEnvironment("WXIDP_MODEL_STEPS", &steps)
	s.fromEnvironment("WXIDP_MODEL_SEED", &seed)
	m := &model{suite: s, rand: rand.New(rand.NewPCG(uint64(seed), uint64(seed))), users: map[string]*modelUser{}}
	ops := []func(){
		m.signIn, m.signIn, m.browse, m.endLogin,
		m.rotate, m.rotate, m.rotate, m.rotate, m.rotate, m.rotate, m.rotate, m.rotate, m.rotate, m.rotate,
		m.check, m.check, m.check, m.advance, m.advance, m.advance, m.advance,
		m.revokeFamily, m.revokeUser, m.setDisabled, m.gc,
		m.replay, m.revokeClient, m.denyJTI, m.repeat,
	}
	for m.step = range steps {
		ops[m.rand.IntN(len(ops))]()
		if s.Failed() {
			s.Fatalf("step %d; again: WXIDP_MODEL_SEED=%d WXIDP_MODEL_STEPS=%d", m.step, seed, steps)
		}
	}
	for _, verdict := range []storage.RotateVerdict{storage.RotateOK, storage.RotateRepeated, storage.RotateReused, storage.RotateRevoked,
		storage.RotateExpired, storage.RotateMissing, storage.RotateUserDisabled, storage.RotateWrongClient, storage.RotateInvalid} {
		if m.seen[verdict] < min(steps/2000, 100) {
			s.Errorf("verdict %d came %d times: the run does not show much", verdict, m.seen[verdict])
		}
	}
	time.Sleep(modelAbsolute + 2*time.Second)
	s.collectGarbage(100)
	if page, _, err := s.store.PageFamilies(s.Context(), "", "", 10); err != nil || len(page) != 0 {
		s.Errorf("%d families are left, %v", len(page), err)
	}
}

// fromEnvironment lets a longer run than that of every test be asked for.
func (s *suite) fromEnvironment(name string, n *int) {
	text := os.Getenv(name)
	if text == "" {
		return
	}
	var err error
	if *n, err = strconv.Atoi(text); err != nil || *n <= 0 {
		s.Fatalf("%s is not a positive number", name)
	}
}

const (
	modelGrace    = 20 * time.Second
	modelIdle     = 2 * time.Hour
	modelAbsolute = 8 * time.Hour
	modelPeople   = 5
	modelFamilies = 30 // the ones that operations choose from
)

type modelUser struct {
	disabled bool
	endings  int
}

type modelFamily struct {
	id         storage.FamilyID
	user       *modelUser
	userID     string
	generation uint32
	rotated    time.Time
	idleEnd    time.Time
	end        time.Time
	revoked    bool
	endings    int         // of the user at creation
	login      *modelLogin // nil: of no browser, or offline

	clientEndings int // of the client at creation
}

func (f *modelFamily) expired() bool {
	now := time.Now()
	return !now.Before(f.end) || !now.Before(f.idleEnd)
}

type model struct {
	*suite
	rand     *rand.Rand
	step     int
	people   [modelPeople]string // user ids
	users    map[string]*modelUser
	families []*modelFamily
	logins   []*modelLogin
	seen     [16]int

	codes         []modelCode
	tokens        []modelToken
	keys          []modelKey
	clientEndings int
	clientEndedAt time.Time
}

func (m *model) pick() *modelFamily {
	if len(m.families) == 0 {
		return nil
	}
	return m.families[max(0, len(m.families)-modelFamilies)+m.rand.IntN(min(len(m.families), modelFamilies))]
}

func (m *model) signIn() {
	n := m.rand.IntN(modelPeople)
	in := request(fmt.Sprint("o", n))
	in.Idle, in.Absolute = modelIdle, modelAbsolute
	if m.rand.IntN(4) == 0 {
		in.Idempotency = &storage.Idempotency{Key: digest("key", m.step), Form: digest("form"), Lifetime: modelKeyLife}
	}
	res := m.suite.signIn(in)
	if m.people[n] == "" {
		if !res.Created {
			m.Fatal("a first sign-in created nobody")
		}
		m.people[n] = res.UserID
		m.users[res.UserID] = &modelUser{}
	}
	user := m.users[m.people[n]]
	want := storage.SignInOK
	if user.disabled {
		want = storage.SignInUserDisabled
	}
	if res.Verdict != want || res.UserID != m.people[n] {
		m.Fatalf("sign-in %+v, want verdict %d of user %s", res, want, m.people[n])
	}
	if want == storage.SignInOK {
		now := storage.RoundTime(time.Now())
		if in.Idempotency != nil {
			m.keys = append(m.keys, modelKey{in.Idempotency.Key, now.Add(modelKeyLife)})
		}
		m.families = append(m.families, &modelFamily{
			id: res.Family.ID, user: user, userID: res.UserID, rotated: now,
			idleEnd: now.Add(modelIdle), end: now.Add(modelAbsolute), endings: user.endings, clientEndings: m.clientEndings,
		})
	}
}

func (m *model) rotate() {
	f := m.pick()
	if f == nil {
		return
	}
	in := storage.Rotation{FamilyID: f.id, ClientID: clientID, Generation: f.generation, Grace: modelGrace, Idle: modelIdle}
	switch m.rand.IntN(12) {
	case 0:
		in.Generation++
	case 1, 2, 3:
		in.Generation = max(in.Generation, 1) - 1
	case 4:
		in.Generation = max(in.Generation, 2) - 2
	case 5:
		in.ClientID = "another"
	case 6:
		in.Grace = 0
		in.Generation = max(in.Generation, 1) - 1
	}
	want := m.judge(f, in)
	got, err := m.store.Rotate(m.Context(), in)
	m.must(err)
	if got.Verdict == storage.RotateMissing && f.expired() {
		want = storage.RotateMissing // an engine may delete what has expired at any time
	}
	m.seen[got.Verdict]++
	if got.Verdict != want {
		m.Fatalf("Rotate of generation %d at %d: verdict %d, want %d", in.Generation, f.generation, got.Verdict, want)
	}
	switch want {
	case storage.RotateOK:
		f.generation++
		f.rotated = storage.RoundTime(time.Now())
		f.idleEnd = f.rotated.Add(modelIdle)
		if f.end.Before(f.idleEnd) {
			f.idleEnd = f.end
		}
	case storage.RotateReused:
		f.revoked = true
		if got.SuccessorUsed != (f.generation-in.Generation > 1) {
			m.Fatalf("SuccessorUsed %v for generation %d at %d", got.SuccessorUsed, in.Generation, f.generation)
		}
	case storage.RotateRepeated:
	default:
		return
	}
	if got.Family.Generation != f.generation || !got.Family.RotatedAt.Equal(f.rotated) {
		m.Fatalf("family %+v, want generation %d since %v", got.Family, f.generation, f.rotated)
	}
}

func (m *model) judge(f *modelFamily, in storage.Rotation) storage.RotateVerdict {
	switch {
	case in.ClientID != clientID:
		return storage.RotateWrongClient
	case f.revoked:
		return storage.RotateRevoked
	case f.expired():
		return storage.RotateExpired
	case f.user.disabled:
		return storage.RotateUserDisabled
	case !m.lives(f):
		return storage.RotateRevoked
	case in.Generation == f.generation:
		return storage.RotateOK
	case in.Generation > f.generation:
		return storage.RotateInvalid
	case in.Generation == f.generation-1 && time.Since(f.rotated) < in.Grace:
		return storage.RotateRepeated
	}
	return storage.RotateReused
}

func (m *model) check() {
	f := m.pick()
	if f == nil {
		return
	}
	res, err := m.store.CheckAccess(m.Context(), storage.AccessCheck{FamilyID: f.id})
	m.must(err)
	active := !f.expired() && !f.user.disabled && m.lives(f)
	if active != (res.Verdict == storage.AccessActive) {
		m.Fatalf("CheckAccess verdict %d, want active %v", res.Verdict, active)
	}
	if active && (res.Family.Generation != f.generation || res.Family.UserID != f.userID) {
		m.Fatalf("CheckAccess family %+v", res.Family)
	}
	if res.Verdict == storage.AccessFamilyMissing && !f.expired() {
		m.Fatal("a family that had not expired is gone")
	}
}

func (m *model) advance() {
	switch m.rand.IntN(30) {
	case 0:
		time.Sleep(time.Duration(m.rand.Int64N(int64(3 * time.Hour))))
	case 1, 2, 3:
		time.Sleep(time.Duration(m.rand.Int64N(int64(10 * time.Minute))))
	default:
		time.Sleep(time.Duration(m.rand.Int64N(int64(10 * time.Second))))
	}
}

func (m *model) revokeFamily() {
	f := m.pick()
	if f == nil || m.rand.IntN(3) > 0 {
		return
	}
	found, err := m.store.RevokeFamily(m.Context(), f.id, "logout")
	m.must(err)
	if !found && !f.expired() {
		m.Fatal("a live family was not found")
	}
	if m.lives(f) {
		f.revoked = true // otherwise it had ended before
	}
}

func (m *model) revokeUser() {
	if f := m.pick(); f != nil && m.rand.IntN(6) == 0 {
		m.must(m.store.RevokeUser(m.Context(), f.userID, "logout everywhere"))
		f.user.endings++
	}
}

func (m *model) setDisabled() {
	f := m.pick()
	if f == nil {
		return
	}
	disable := m.rand.IntN(4) == 0
	m.must(m.store.SetUserDisabled(m.Context(), f.userID, disable))
	if disable && !f.user.disabled {
		f.user.endings++
	}
	f.user.disabled = disable
}

func (m *model) gc() {
	_, _, err := m.store.DeleteExpired(m.Context(), 1+m.rand.IntN(50))
	m.must(err)
}
