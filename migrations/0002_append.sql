-- The functions that write the ledger. One call of ledger_append is one append, in one round trip and one transaction.
--
-- Locks. Everyone who draws event numbers holds the host's advisory lock (class 0x4D4C4544, shared) until its commit, so a
-- reader that meets a gap in the numbers can wait for exactly those holders. What changes a host as a whole (its own
-- stream, its lease, a rebuild) takes the same lock exclusively.

-- One field of the hash: its length in bytes as int4 (big-endian), then the bytes in UTF-8; -1 alone for null.
create function mountledger.ledger_field(value text) returns bytea
language sql stable as $$
  select coalesce(int4send(octet_length(value)) || convert_to(value, 'UTF8'), '\xffffffff'::bytea)
$$;

-- A number of the hash: the length 8, then int8 (big-endian).
create function mountledger.ledger_field(value bigint) returns bytea
language sql stable as $$
  select coalesce('\x00000008'::bytea || int8send(value), '\xffffffff'::bytea)
$$;

-- The hash of an event as lower-case hex. headers must be without "hash". docs/events.md gives the encoding byte for byte. In
-- plpgsql, because a call of it is then an expression whose plan is kept; a function in SQL is parsed again with each statement.
create function mountledger.ledger_event_hash(
  prev text, host text, stream text, version bigint, id text, type text, micros bigint, actor text, correlation text,
  causation text, data text, headers text) returns text
language plpgsql stable as $$
begin
  return encode(sha256(
    mountledger.ledger_field(prev) || mountledger.ledger_field(host) || mountledger.ledger_field(stream)
    || mountledger.ledger_field(version) || mountledger.ledger_field(id) || mountledger.ledger_field(type)
    || mountledger.ledger_field(micros) || mountledger.ledger_field(actor) || mountledger.ledger_field(correlation)
    || mountledger.ledger_field(causation) || mountledger.ledger_field(data) || mountledger.ledger_field(headers)), 'hex');
end
$$;

-- The channel that wakes a host's agent.
create function mountledger.ledger_channel(host text) returns text
language sql stable as $$
  select 'ml_' || left(encode(sha256(convert_to(host, 'UTF8')), 'hex'), 16)
$$;

create function mountledger.ledger_attachment_key(volume text, consumer text) returns bytea
language sql stable as $$
  select sha256(mountledger.ledger_field(volume) || mountledger.ledger_field(consumer))
$$;

-- Replaces a mountpoint's projection row. Used by the append and by the rebuild, so that both come out the same. Like the two
-- below it returns true: a call of it is then an assignment, which costs a fifth of what a statement of its own does.
create function mountledger.ledger_put_mountpoint(
  v_host text, v_mountpoint text, v_version bigint, v_at timestamptz, v_hash text, v_row jsonb) returns boolean
language plpgsql as $$
begin
  insert into mountledger.mountpoint as m (
    host, mountpoint, version, phase, action, due_at, generation, source, fstype, options, boot_id, mount_id,
    error_operation, error_errno, error_message, retry_at, state, head_hash, updated_at)
  values (
    v_host, v_mountpoint, v_version, v_row ->> 'phase', v_row ->> 'action', (v_row ->> 'dueAt')::timestamptz,
    (v_row ->> 'generation')::bigint, v_row ->> 'source', v_row ->> 'fstype',
    array(select jsonb_array_elements_text(v_row -> 'options')), v_row ->> 'bootId', (v_row ->> 'mountId')::numeric,
    v_row ->> 'errorOperation', v_row ->> 'errorErrno', v_row ->> 'errorMessage', (v_row ->> 'retryAt')::timestamptz,
    v_row -> 'state', v_hash, v_at)
  on conflict on constraint mountpoint_key do update set
    version = excluded.version, phase = excluded.phase, action = excluded.action, due_at = excluded.due_at,
    generation = excluded.generation, source = excluded.source, fstype = excluded.fstype, options = excluded.options,
    boot_id = excluded.boot_id, mount_id = excluded.mount_id, error_operation = excluded.error_operation,
    error_errno = excluded.error_errno, error_message = excluded.error_message, retry_at = excluded.retry_at,
    state = excluded.state, head_hash = excluded.head_hash, updated_at = excluded.updated_at;
  return true;
end
$$;

-- Adds attachments: [{volume, consumer, onFailure, first, confirmed, actor, since?}]; since defaults to v_at.
create function mountledger.ledger_put_attachments(v_host text, v_mountpoint text, v_at timestamptz, v_rows jsonb) returns boolean
language plpgsql as $$
begin
  insert into mountledger.attachment (host, mountpoint, key, volume, consumer, on_failure, first, confirmed, since, actor)
  select v_host, v_mountpoint, mountledger.ledger_attachment_key(r ->> 'volume', r ->> 'consumer'), r ->> 'volume',
    r ->> 'consumer', r ->> 'onFailure', (r ->> 'first')::boolean, (r ->> 'confirmed')::boolean,
    coalesce((r ->> 'since')::timestamptz, v_at), r ->> 'actor'
  from jsonb_array_elements(v_rows) as r
  on conflict on constraint attachment_key do update set
    on_failure = excluded.on_failure, first = excluded.first, confirmed = excluded.confirmed, since = excluded.since,
    actor = excluded.actor;
  return true;
end
$$;

-- Replaces what a host's own stream says; the lease beside it stays as it is. downNow and agentNow: the append itself took
-- the host down or started the agent, so that time is its own; otherwise downSince and agentStartedAt, if given, else what is there.
create function mountledger.ledger_put_host(v_host text, v_version bigint, v_at timestamptz, v_hash text, v_row jsonb) returns boolean
language plpgsql as $$
declare
  v_up constant boolean := (v_row ->> 'up')::boolean;
  v_down_since constant timestamptz :=
    case when (v_row ->> 'downNow')::boolean then v_at else (v_row ->> 'downSince')::timestamptz end;
  v_started_at constant timestamptz :=
    case when (v_row ->> 'agentNow')::boolean then v_at else (v_row ->> 'agentStartedAt')::timestamptz end;
begin
  insert into mountledger.host as h (
    host, version, up, down_reason, down_by, down_since, agent_epoch, agent_id, agent_machine_id, agent_boot_id,
    agent_kernel, agent_version, agent_started_at, head_hash, updated_at)
  values (
    v_host, v_version, v_up, v_row ->> 'downReason', v_row ->> 'downBy', case when v_up then null else v_down_since end,
    (v_row ->> 'agentEpoch')::bigint, v_row ->> 'agentId', v_row ->> 'agentMachineId', v_row ->> 'agentBootId',
    v_row ->> 'agentKernel', v_row ->> 'agentVersion', v_started_at, v_hash, v_at)
  on conflict on constraint host_key do update set
    version = excluded.version, up = excluded.up, down_reason = excluded.down_reason, down_by = excluded.down_by,
    down_since = case when excluded.up then null else coalesce(excluded.down_since, h.down_since) end,
    agent_epoch = excluded.agent_epoch, agent_id = excluded.agent_id, agent_machine_id = excluded.agent_machine_id,
    agent_boot_id = excluded.agent_boot_id, agent_kernel = excluded.agent_kernel, agent_version = excluded.agent_version,
    agent_started_at = case when excluded.agent_id is null then null else coalesce(excluded.agent_started_at, h.agent_started_at) end,
    head_hash = excluded.head_hash, updated_at = excluded.updated_at;
  return true;
end
$$;

-- Appends all events of a batch to one stream, or none. The batch is one document, so that many can be gathered:
--   host, stream, expected, actor, correlation, causation, epoch, agent, local, requireUp,
--   request {key, actor, bodyHash, mountpoint, version, status, answer} | null,
--   events [{id, type, dotnet, data}], mountpoint {…} | null, hostRow {…} | null,
--   added [{…}] | null, removed [{volume, consumer}] | null, confirmAll
-- outcome is one of: appended (at, seqs, hashes), conflict (actual: the version), stale-epoch (actual: the epoch),
-- host-down (reason), duplicate (request_*). All but appended leave nothing behind.
create function mountledger.ledger_append(
  batch jsonb,
  out outcome text, out actual bigint, out reason text, out at timestamptz, out seqs bigint[], out hashes text[],
  out request_actor text, out request_body_hash text, out request_mountpoint text, out request_version bigint, out request_status integer,
  out request_answer text)
language plpgsql
-- Plans are kept from the first call on, and made for large tables even while the tables are small.
set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_host constant text := batch ->> 'host';
  v_stream constant text := batch ->> 'stream';
  v_expected constant bigint := (batch ->> 'expected')::bigint;
  v_actor constant text := batch ->> 'actor';
  v_correlation constant text := batch ->> 'correlation';
  v_causation constant text := batch ->> 'causation';
  v_epoch constant bigint := (batch ->> 'epoch')::bigint;
  v_key constant text := batch #>> '{request,key}';
  v_require_up constant boolean := coalesce((batch ->> 'requireUp')::boolean, false);
  v_events constant jsonb := batch -> 'events';
  v_count constant integer := jsonb_array_length(v_events);
  v_version constant bigint := v_expected + v_count;
  v_origin constant jsonb := jsonb_strip_nulls(jsonb_build_object('epoch', v_epoch, 'agent', batch ->> 'agent'));
  v_current_epoch bigint;
  v_up boolean;
  v_previous_hash text;
  v_micros bigint;
  v_event jsonb;
  v_headers jsonb;
  v_all_headers jsonb[];
  v_done boolean;
begin
  if v_key is not null then
    -- A key older than its retention is as good as new, whether or not it has been purged.
    insert into mountledger.request as r (host, key, actor, body_hash, mountpoint, version, status, answer)
    values (v_host, v_key, batch #>> '{request,actor}', batch #>> '{request,bodyHash}', batch #>> '{request,mountpoint}',
      (batch #>> '{request,version}')::bigint, (batch #>> '{request,status}')::integer, batch #>> '{request,answer}')
    on conflict on constraint request_key do update set
      actor = excluded.actor, body_hash = excluded.body_hash, mountpoint = excluded.mountpoint, version = excluded.version,
      status = excluded.status, answer = excluded.answer, created = excluded.created
      where r.created < excluded.created - interval '24 hours';
    if not found then
      outcome := 'duplicate';
      select r.actor, r.body_hash, r.mountpoint, r.version, r.status, r.answer
        into request_actor, request_body_hash, request_mountpoint, request_version, request_status, request_answer
        from mountledger.request r where r.host = v_host and r.key = v_key;
      return;
    end if;
  end if;

  if v_stream = '@host' then
    perform pg_advisory_xact_lock(1296844100, hashtext(v_host));
  else
    perform pg_advisory_xact_lock_shared(1296844100, hashtext(v_host));
  end if;

  -- Everything that is looked up, and the version check, in one statement: its snapshot is younger than the lock. The last
  -- event is found by a range and an order where an equality would do, because only the index of the stream has that order;
  -- the planner takes another one as gladly while the tables are small, and a kept plan then reads all events of the host.
  with host as (
    select h.epoch, h.up, h.down_reason from mountledger.host h where h.host = v_host),
  permitted as (
    select from (values (true)) as one left join host on true
    where coalesce(v_epoch = coalesce(host.epoch, 0), true) and coalesce(host.up or not v_require_up, true)),
  stream as (
    update mountledger.mt_streams s
    set version = v_expected + v_count, timestamp = greatest(clock_timestamp(), s.timestamp, last.timestamp)
    from permitted
    left join lateral (
      select e.timestamp, e.headers ->> 'hash' as hash from mountledger.mt_events e
      where e.tenant_id = v_host and e.stream_id = v_stream and e.version between v_expected and v_expected
      order by e.version limit 1) as last on true
    where v_expected > 0 and s.tenant_id = v_host and s.id = v_stream and s.version = v_expected
    returning s.timestamp, last.hash)
  select host.epoch, host.up, host.down_reason, stream.timestamp, stream.hash
    into v_current_epoch, v_up, reason, at, v_previous_hash
    from (values (true)) as one left join host on true left join stream on true;

  if v_epoch <> coalesce(v_current_epoch, 0) then
    outcome := 'stale-epoch';
    actual := coalesce(v_current_epoch, 0);
  elsif not v_up and v_require_up then
    outcome := 'host-down';
  else
    if v_expected = 0 then
      insert into mountledger.mt_streams as s (tenant_id, id, version, timestamp, created)
      values (v_host, v_stream, v_count, clock_timestamp(), clock_timestamp())
      on conflict on constraint pkey_mt_streams_tenant_id_id do nothing
      returning s.timestamp into at;
    end if;
    if at is null then
      outcome := 'conflict';
      select s.version into actual from mountledger.mt_streams s where s.tenant_id = v_host and s.id = v_stream;
      actual := coalesce(actual, 0);
    end if;
  end if;

  if outcome is not null then
    if v_key is not null then
      delete from mountledger.request r where r.host = v_host and r.key = v_key;
    end if;
    return;
  end if;

  -- Whoever removed the last event, or its hash, is found by verify; the mountpoint goes on.
  v_previous_hash := coalesce(v_previous_hash, repeat('0', 64));
  v_micros := (extract(epoch from at) * 1000000)::bigint;
  for i in 0 .. v_count - 1 loop
    v_event := v_events -> i;
    v_headers := v_origin || jsonb_build_object('prev', v_previous_hash);
    v_previous_hash := mountledger.ledger_event_hash(
      v_previous_hash, v_host, v_stream, v_expected + i + 1, v_event ->> 'id', v_event ->> 'type', v_micros, v_actor,
      v_correlation, v_causation, v_event ->> 'data', v_headers::text);
    v_all_headers := v_all_headers || (v_headers || jsonb_build_object('hash', v_previous_hash));
    hashes := hashes || v_previous_hash;
    seqs := seqs || nextval('mountledger.mt_events_sequence');
  end loop;
  insert into mountledger.mt_events (
    seq_id, id, stream_id, version, data, type, timestamp, tenant_id, mt_dotnet_type, correlation_id, causation_id,
    headers, user_name)
  select seqs[i + 1], (v_events -> i ->> 'id')::uuid, v_stream, v_expected + i + 1, v_events -> i -> 'data',
    v_events -> i ->> 'type', at, v_host, v_events -> i ->> 'dotnet', v_correlation, v_causation, v_all_headers[i + 1], v_actor
  from generate_series(0, v_count - 1) as i;

  if v_stream = '@host' then
    v_done := mountledger.ledger_put_host(v_host, v_version, at, v_previous_hash, batch -> 'hostRow');
  else
    v_done := mountledger.ledger_put_mountpoint(v_host, v_stream, v_version, at, v_previous_hash, batch -> 'mountpoint');
    if jsonb_typeof(batch -> 'removed') = 'array' then
      delete from mountledger.attachment a
      using jsonb_array_elements(batch -> 'removed') as r
      where a.host = v_host and a.mountpoint = v_stream
        and a.key = mountledger.ledger_attachment_key(r ->> 'volume', r ->> 'consumer');
    end if;
    if jsonb_typeof(batch -> 'added') = 'array' then
      v_done := mountledger.ledger_put_attachments(v_host, v_stream, at, batch -> 'added');
    end if;
    if (batch ->> 'confirmAll')::boolean then
      update mountledger.attachment a set confirmed = true
      where a.host = v_host and a.mountpoint = v_stream and not a.confirmed;
    end if;
  end if;

  if not (batch ->> 'local')::boolean then
    perform pg_notify(
      mountledger.ledger_channel(v_host),
      case when octet_length(v_stream) > 7900 then left(v_stream, 1975) else v_stream end);
  end if;
  outcome := 'appended';
  reason := null;
end
$$;

-- Keeps the answer of a request; creates the row when nothing was appended. Returns the row that stands: a row of another
-- actor or another body is never changed, and an answer that is there already is not replaced. Of a request that recorded events
-- only who knows at which version may give the answer (who recorded them, or read them in the history).
create function mountledger.ledger_save_answer(
  v_host text, v_key text, v_actor text, v_body_hash text, v_mountpoint text, v_version bigint, v_status integer, v_answer text)
returns mountledger.request
language plpgsql as $$
declare
  v_row mountledger.request;
begin
  insert into mountledger.request as r (host, key, actor, body_hash, mountpoint, status, answer)
  values (v_host, v_key, v_actor, v_body_hash, v_mountpoint, v_status, v_answer)
  on conflict on constraint request_key do update set
    actor = excluded.actor, body_hash = excluded.body_hash, mountpoint = coalesce(excluded.mountpoint, r.mountpoint),
    status = excluded.status, answer = excluded.answer,
    created = case when r.created < excluded.created - interval '24 hours' then excluded.created else r.created end
    where r.created < excluded.created - interval '24 hours'
      or (r.answer is null and r.actor = excluded.actor and r.body_hash = excluded.body_hash
        and r.version is not distinct from v_version)
  returning r.* into v_row;
  if not found then
    select * into v_row from mountledger.request r where r.host = v_host and r.key = v_key;
  end if;
  return v_row;
end
$$;

-- Takes a host's lease, with epoch = max(the ledger's, v_local_epoch) + 1, unless somebody else holds it and its time has not
-- run out. v_boot_id may be BOOT or BOOT/NAMESPACE. The same machine takes over at once in the same boot and mount namespace (it
-- has the host-local lock) and after a reboot (the holder cannot be alive). taken says which; the rest is the holder.
create function mountledger.ledger_take_lease(
  v_host text, v_agent text, v_machine_id text, v_boot_id text, v_local_epoch bigint, v_ttl interval,
  out taken boolean, out epoch bigint, out agent text, out machine_id text, out boot_id text, out expires_at timestamptz)
language plpgsql as $$
begin
  perform pg_advisory_xact_lock(1296844100, hashtext(v_host));
  insert into mountledger.host (host) values (v_host) on conflict on constraint host_key do nothing;
  update mountledger.host h
  set epoch = greatest(h.epoch, v_local_epoch) + 1, lease_agent = v_agent, lease_machine_id = v_machine_id,
    lease_boot_id = v_boot_id, lease_expires_at = clock_timestamp() + v_ttl
  where h.host = v_host
    and (h.lease_expires_at is null or h.lease_expires_at <= clock_timestamp()
      or (h.lease_machine_id = v_machine_id
        and (h.lease_boot_id = v_boot_id or split_part(h.lease_boot_id, '/', 1) <> split_part(v_boot_id, '/', 1))));
  taken := found;
  select h.epoch, h.lease_agent, h.lease_machine_id, h.lease_boot_id, h.lease_expires_at
    into epoch, agent, machine_id, boot_id, expires_at
    from mountledger.host h where h.host = v_host;
end
$$;
