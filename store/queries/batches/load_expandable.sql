-- Rows are found by key, each by itself: how many tasks are open must not matter.
select s.id as "id!", s.task_id as "task_id!", s.namespace as "namespace!", s.name as "name!",
       t.priority as "priority!", t.template_id as "template_id!", o.attempt as "attempt!",
       o.result::text as "result!", b.id as "batch_id?", b.expanded_upto as "expanded_upto?",
       p.appended as "appended?"
from unnest($1::uuid[]) as i(id)
cross join lateral (
    select id, task_id, namespace, name from tasker.steps
    where id = i.id and unsettled and kind = 'batchable'
    offset 0
) s
cross join lateral (
    select priority, template_id from tasker.tasks
    where id = s.task_id and state in ('pending', 'in_progress')
    offset 0
) t
cross join lateral (
    select attempt, result from tasker.outcomes
    where step_id = s.id and state = 'complete'
    offset 0
) o
left join lateral (
    select id, expanded_upto from tasker.batches where batchable_step_id = s.id offset 0
) b on true
-- Only if its pages have no gap.
left join lateral (
    select max(total) as appended from tasker.cursor_pages
    where step_id = s.id and attempt = o.attempt
    having count(*) = max(page) + 1
    offset 0
) p on true
