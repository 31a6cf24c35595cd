package storage

// MoveRecord is the name of the document that says what a store has to do with
// a move. It is about the store itself and never moves.
const MoveRecord = "move"
