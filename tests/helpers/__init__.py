"""What several test files share: small bases, rows, corpora, leaderboards, and a browser."""
