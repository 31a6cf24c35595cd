package storagetest

import (
	"errors"
	"fmt"
	"slices"

	"github.com/wxidp/wxidp/storage"
)

// pages walks a listing to its end and returns the ids in their order.
func (s *suite) pages(limit int, page func(after string) (ids []string, next string, err error)) []string {
	s.Helper()
	var all []string
	after := ""
	for range 1000 {
		ids, next, err := page(after)
		s.must(err)
		if len(ids) > limit {
			s.Fatalf("a page of %d, limit %d", len(ids), limit)
		}
		all = append(all, ids...)
		if next == "" {
			if !slices.IsSorted(all) && limit > 0 {
				s.Error("the listing is out of order")
			}
			return all
		}
		after = next
	}
	s.Fatal("the listing has no end")
	return nil
}

func (s *suite) userPages(limit int) []string {
	return s.pages(limit, func(after string) ([]string, string, error) {
		users, next, err := s.store.PageUsers(s.Context(), after, limit)
		ids := make([]string, len(users))
		for i, user := range users {
			ids[i] = user.ID
			if user.Profile.Nickname == "" {
				s.Errorf("user %s has no profile", user.ID)
			}
		}
		return ids, next, err
	})
}

func (s *suite) pagingUsers() {
	if got := s.userPages(3); len(got) != 0 {
		s.Fatalf("users of an empty store: %v", got)
	}
	var want []string
	for i := range 20 {
		want = append(want, s.family(fmt.Sprint("o", i)).UserID)
	}
	slices.Sort(want)
	for _, limit := range []int{1, 3, 7, 19, 20, 21, storage.MaxPage} {
		if got := s.userPages(limit); !slices.Equal(got, want) {
			s.Errorf("limit %d: %d users %v", limit, len(got), got)
		}
	}
	for _, limit := range []int{0, -1, 1 << 30} {
		users, next, err := s.store.PageUsers(s.Context(), "", limit)
		if err != nil || next != "" || len(users) != len(want) {
			s.Errorf("limit %d: %d users, %q, %v", limit, len(users), next, err)
		}
	}
	// A user who comes between two pages neither repeats nor hides another.
	first, next, err := s.store.PageUsers(s.Context(), "", 10)
	s.must(err)
	s.family("o-between")
	rest, _, err := s.store.PageUsers(s.Context(), next, storage.MaxPage)
	s.must(err)
	var got []string
	for _, user := range slices.Concat(first, rest) {
		got = append(got, user.ID)
	}
	if compact := slices.Compact(slices.Clone(got)); len(compact) != len(got) || len(got) < len(want) || len(got) > len(want)+1 {
		s.Errorf("%d users, %d of them different, want %d or one more", len(got), len(compact), len(want))
	}
}

func (s *suite) familyPages(userID string, limit int) []string {
	return s.pages(limit, func(after string) ([]string, string, error) {
		families, next, err := s.store.PageFamilies(s.Context(), userID, after, limit)
		ids := make([]string, len(families))
		for i, f := range families {
			ids[i] = string(f.ID[:])
			if userID != "" && f.UserID != userID {
				s.Errorf("family of user %s in the listing of %s", f.UserID, userID)
			}
		}
		return ids, next, err
	})
}

func (s *suite) pagingFamilies() {
	want := map[string][]string{}
	for i := range 24 {
		f := s.family(fmt.Sprint("o", i%3))
		want[f.UserID] = append(want[f.UserID], string(f.ID[:]))
		want[""] = append(want[""], string(f.ID[:]))
	}
	if len(want) != 4 {
		s.Fatalf("%d users", len(want)-1)
	}
	for userID, ids := range want {
		slices.Sort(ids)
		for _, limit := range []int{1, 5, 8, 24, 100} {
			if got := s.familyPages(userID, limit); !slices.Equal(got, ids) {
				s.Errorf("user %q, limit %d: %d families, want %d", userID, limit, len(got), len(ids))
			}
		}
	}
	for _, cursor := range []string{"x", "' OR 1=1 --", storage.NewUserID() + "A"} {
		if _, _, err := s.store.PageFamilies(s.Context(), "", cursor, 10); !errors.Is(err, storage.ErrBadCursor) {
			s.Errorf("cursor %q: %v", cursor, err)
		}
	}
}

// rewrapNothing holds that a walk over values that are sealed as they should
// be ends and writes nothing.
func (s *suite) rewrapNothing() {
	for i := range 10 {
		s.family(fmt.Sprint("o", i))
	}
	commits := s.store.Stats().Commits
	after := ""
	for range 100 {
		n, next, err := s.store.Rewrap(s.Context(), after, 3)
		s.must(err)
		if n != 0 {
			s.Fatalf("%d values were sealed anew", n)
		}
		if next == "" {
			if got := s.store.Stats().Commits - commits; got != 0 {
				s.Errorf("%d commits", got)
			}
			return
		}
		after = next
	}
	s.Fatal("Rewrap finds no end")
}
