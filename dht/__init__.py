"""Who is near what: routing table, lookups, provider records, answers. Rules only, no IO."""
