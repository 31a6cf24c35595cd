package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/wxidp/wxidp/internal/limit"
)

var _ limit.Board = (*Store)(nil)

// maxNotices is how many notices one trade returns: of two dozen nodes all
// that five rounds may have left, and at most 8 MiB.
const maxNotices = 128

// tradeNotices is one statement. Its parts see the table as it was before all
// of them. A node leaves its rounds one after the other, so that a round that
// is seen has none below it that is yet to come.
const tradeNotices = `WITH gone AS (DELETE FROM notices WHERE node = $1 AND expires_at <= clock_timestamp()),
	told AS (INSERT INTO notices (node, round, expires_at, body)
		SELECT $1, $2, clock_timestamp() + $4::interval, $3 WHERE $3::bytea IS NOT NULL ON CONFLICT DO NOTHING)
	SELECT n.node, n.round, n.body FROM notices n LEFT JOIN unnest($5::uuid[], $6::bigint[]) AS seen (node, round) ON seen.node = n.node
	WHERE n.node <> $1 AND n.round > coalesce(seen.round, 0)
	ORDER BY row_number() OVER (PARTITION BY n.node ORDER BY n.round), n.node LIMIT $7`

// TradeNotices leaves what this node tells the others of its limits and
// returns what they tell. It is limit.Board's, and waits for no disk.
func (s *Store) TradeNotices(ctx context.Context, mine limit.Notice, seen map[limit.NodeID]int64) ([]limit.Notice, error) {
	nodes, rounds := make([][16]byte, 0, len(seen)), make([]int64, 0, len(seen))
	for node, round := range seen {
		nodes, rounds = append(nodes, node), append(rounds, round)
	}
	var body []byte // NULL where it is empty
	if len(mine.Body) > 0 {
		body = mine.Body
	}
	var others []limit.Notice
	err := s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		rows, err := c.Query(ctx, s.sql(tradeNotices), [16]byte(mine.Node), mine.Round, body, limit.NoticeLife, nodes, rounds, maxNotices)
		if err != nil {
			return err
		}
		others, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (n limit.Notice, err error) {
			return n, row.Scan((*[16]byte)(&n.Node), &n.Round, &n.Body)
		})
		return err
	})
	return others, err
}
