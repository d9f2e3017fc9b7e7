select s.id
from tasker.steps s
where s.state = 'enqueued'
  and s.sent_seq < s.dispatch_seq
  and s.enqueued_at < now() - make_interval(secs => $1)
order by s.enqueued_at
limit $2
