-- The publisher stays: whoever comes next must know that somebody published before.
update tasker.batches
set publisher_until = now()
where publisher = $1
  and not settled
  and state = 'sealed'
  and published_upto < expected
  and publisher_until > now()
