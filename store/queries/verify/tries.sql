-- I5: how much of its budget the neediest step of each kind has used up; the budget is in the template.
select t.template_id as "template_id!", coalesce(b.worker_template, s.name) as "template_step!",
       max(s.tries) as "tries!", (array_agg(s.id order by s.tries desc, s.id))[1] as "id!"
from tasker.steps s
join tasker.tasks t on t.id = s.task_id
left join tasker.batches b on b.id = s.batch_id
where s.tries > 0
group by 1, 2
