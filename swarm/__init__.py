"""Who has which piece, what to ask of whom, whom to serve. Rules only, no IO."""
