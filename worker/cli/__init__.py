"""What people type: `worker VERB`. One module a group of verbs; `app` puts them together."""
