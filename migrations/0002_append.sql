-- The functions that write the ledger. One call of ledger_append writes the appends of any number of callers, in one round trip
-- and one transaction.
--
-- Locks. Everyone who draws event numbers holds the host's advisory lock (class 0x4D4C4544, shared) until its commit, so a
-- reader that meets a gap in the numbers can wait for exactly those holders. What changes a host as a whole (its own
-- stream, its lease, a rebuild) takes the same lock exclusively. Locks are taken in one order by all: idempotency keys, the host's
-- lock, streams that exist, new streams; within each kind in the order of their names.

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

-- Replaces the projection rows of mountpoints. Used by the append and by the rebuild, so that both come out the same. A mountpoint
-- without a hash is passed over. Like the two below it returns true: a call of it is then an assignment, which costs a fifth of what
-- a statement of its own does.
create function mountledger.ledger_put_mountpoints(
  v_host text, v_mountpoints text[], v_versions bigint[], v_at timestamptz[], v_hashes text[], v_rows jsonb[]) returns boolean
language plpgsql as $$
begin
  insert into mountledger.mountpoint as m (
    host, mountpoint, version, phase, action, due_at, generation, source, fstype, options, boot_id, mount_id,
    error_operation, error_errno, error_message, retry_at, state, head_hash, updated_at)
  select
    v_host, u.mountpoint, u.version, u.r ->> 'phase', u.r ->> 'action', (u.r ->> 'dueAt')::timestamptz,
    (u.r ->> 'generation')::bigint, u.r ->> 'source', u.r ->> 'fstype',
    array(select jsonb_array_elements_text(u.r -> 'options')), u.r ->> 'bootId', (u.r ->> 'mountId')::numeric,
    u.r ->> 'errorOperation', u.r ->> 'errorErrno', u.r ->> 'errorMessage', (u.r ->> 'retryAt')::timestamptz,
    u.r -> 'state', u.hash, u.at
  from unnest(v_mountpoints, v_versions, v_at, v_hashes, v_rows) as u(mountpoint, version, at, hash, r)
  where u.hash is not null
  on conflict on constraint mountpoint_key do update set
    version = excluded.version, phase = excluded.phase, action = excluded.action, due_at = excluded.due_at,
    generation = excluded.generation, source = excluded.source, fstype = excluded.fstype, options = excluded.options,
    boot_id = excluded.boot_id, mount_id = excluded.mount_id, error_operation = excluded.error_operation,
    error_errno = excluded.error_errno, error_message = excluded.error_message, retry_at = excluded.retry_at,
    state = excluded.state, head_hash = excluded.head_hash, updated_at = excluded.updated_at;
  return true;
end
$$;

-- Adds attachments. Of each mountpoint: [{volume, consumer, onFailure, first, confirmed, actor, since?}] or null; since defaults to
-- its v_at. A mountpoint without v_at is passed over.
create function mountledger.ledger_put_attachments(
  v_host text, v_mountpoints text[], v_at timestamptz[], v_rows jsonb[]) returns boolean
language plpgsql as $$
begin
  insert into mountledger.attachment (host, mountpoint, key, volume, consumer, on_failure, first, confirmed, since, actor)
  select v_host, u.mountpoint, mountledger.ledger_attachment_key(r ->> 'volume', r ->> 'consumer'), r ->> 'volume',
    r ->> 'consumer', r ->> 'onFailure', (r ->> 'first')::boolean, (r ->> 'confirmed')::boolean,
    coalesce((r ->> 'since')::timestamptz, u.at), r ->> 'actor'
  from unnest(v_mountpoints, v_at, v_rows) as u(mountpoint, at, rows), jsonb_array_elements(u.rows) as r
  where u.at is not null
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

-- Appends to many streams of one host, each append by itself: all of its events, or none and the reason. The arrays have one
-- member for each append, in the order of the streams; no two may be of the same stream or have the same idempotency key, and a host's own
-- stream (@host) comes alone.
--   v_streams, v_expected       the stream, and its version before
--   v_counts                    how many events it has
--   v_actors, v_correlations, v_causations, v_epochs, v_agents, v_local (no notification), v_require_up
--   v_requests                  {key, actor, bodyHash, mountpoint, version, status, answer} or null; null when none has one
--   v_rows                      the new projection row: of the mountpoint, or of the host
--   v_added, v_removed          [{…}], [{volume, consumer}] or null; null when none has any
--   v_confirm_all               all attachments of the mountpoint are confirmed
-- and one for each event, those of the first append first:
--   v_ids, v_types, v_dotnet, v_data
-- outcomes is for each append one of: appended (at; of its events seqs and hashes), conflict (actual: the version), stale-epoch
-- (actual: the epoch), host-down (reason), duplicate (requests: the row that stands). All but appended leave nothing behind.
create function mountledger.ledger_append(
  v_host text, v_streams text[], v_expected bigint[], v_counts integer[], v_actors text[], v_correlations text[],
  v_causations text[], v_epochs bigint[], v_agents text[], v_local boolean[], v_require_up boolean[], v_requests jsonb[],
  v_rows jsonb[], v_added jsonb[], v_removed jsonb[], v_confirm_all boolean[],
  v_ids uuid[], v_types text[], v_dotnet text[], v_data jsonb[],
  out outcomes text[], out actual bigint[], out reason text, out at timestamptz[], out seqs bigint[], out hashes text[],
  out requests jsonb[])
language plpgsql
-- Plans are kept from the first call on, and made for large tables even while the tables are small: each row by its key.
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  v_size constant integer := cardinality(v_streams);
  v_of_host constant boolean := v_streams[1] = '@host';
  v_epoch bigint;
  v_up boolean;
  v_begins boolean := false;
  v_places integer[];
  v_times timestamptz[];
  v_time timestamptz;
  v_versions bigint[] := array_fill(null::bigint, array[v_size]);
  v_heads text[] := array_fill(null::text, array[v_size]);
  v_owners integer[] := array_fill(null::integer, array[cardinality(v_ids)]);
  v_numbers bigint[] := array_fill(null::bigint, array[cardinality(v_ids)]);
  v_headers jsonb[] := array_fill(null::jsonb, array[cardinality(v_ids)]);
  v_origin jsonb;
  v_header jsonb;
  v_hash text;
  v_micros bigint;
  v_event integer := 0;
  v_done boolean := false;
begin
  outcomes := array_fill(null::text, array[v_size]);
  actual := array_fill(null::bigint, array[v_size]);
  at := array_fill(null::timestamptz, array[v_size]);
  seqs := array_fill(null::bigint, array[cardinality(v_ids)]);
  hashes := array_fill(null::text, array[cardinality(v_ids)]);

  if v_requests is not null then
    -- A key older than its retention is as good as new, whether or not it has been purged.
    with kept as (
      insert into mountledger.request as r (host, key, actor, body_hash, mountpoint, version, status, answer)
      select v_host, q ->> 'key', q ->> 'actor', q ->> 'bodyHash', q ->> 'mountpoint', (q ->> 'version')::bigint,
        (q ->> 'status')::integer, q ->> 'answer'
      from unnest(v_requests) as q where q is not null order by q ->> 'key'
      on conflict on constraint request_key do update set
        actor = excluded.actor, body_hash = excluded.body_hash, mountpoint = excluded.mountpoint, version = excluded.version,
        status = excluded.status, answer = excluded.answer, created = excluded.created
        where r.created < excluded.created - interval '24 hours'
      returning r.key)
    select array_agg(case when u.q is not null and kept.key is null then 'duplicate' end order by u.n) into outcomes
      from unnest(v_requests) with ordinality as u(q, n) left join kept on kept.key = u.q ->> 'key';
    if 'duplicate' = any(outcomes) then
      select array_agg(to_jsonb(r) order by u.n) into requests
        from unnest(v_requests, outcomes) with ordinality as u(q, outcome, n)
        left join mountledger.request r on u.outcome is not null and r.host = v_host and r.key = u.q ->> 'key';
    end if;
  end if;

  if v_of_host then
    perform pg_advisory_xact_lock(1296844100, hashtext(v_host));
  else
    perform pg_advisory_xact_lock_shared(1296844100, hashtext(v_host));
  end if;

  -- From here on each statement's snapshot is younger than the lock, and the host is as it is until the commit.
  select h.epoch, h.up, h.down_reason into v_epoch, v_up, reason from mountledger.host h where h.host = v_host;
  for i in 1 .. v_size loop
    if outcomes[i] is not null then
    elsif v_epochs[i] <> coalesce(v_epoch, 0) then
      outcomes[i] := 'stale-epoch';
      actual[i] := coalesce(v_epoch, 0);
    elsif v_require_up[i] and not v_up then
      outcomes[i] := 'host-down';
    elsif v_expected[i] = 0 then
      v_begins := true;
    else
      -- The version check. Stream by stream, because a join is planned by the size that the tables have at the time: while they are small, it reads
      -- all streams of the host. The last event is found by a range and an order where an equality would do, because only the index of the
      -- stream has that order; the planner takes another one as gladly while the table is small, and a kept plan then reads all events of the host.
      update mountledger.mt_streams s
      set version = v_expected[i] + v_counts[i], timestamp = greatest(clock_timestamp(), s.timestamp, last.timestamp)
      from (values (1)) as one left join lateral (
        select e.timestamp, e.headers ->> 'hash' as hash from mountledger.mt_events e
        where e.tenant_id = v_host and e.stream_id = v_streams[i] and e.version between v_expected[i] and v_expected[i]
        order by e.version limit 1) as last on true
      where s.tenant_id = v_host and s.id = v_streams[i] and s.version = v_expected[i]
      returning s.timestamp, last.hash into v_time, v_hash;
      at[i] := v_time;
      v_heads[i] := v_hash;
    end if;
  end loop;

  if v_begins then
    with begun as (
      insert into mountledger.mt_streams as s (tenant_id, id, version, timestamp, created)
      select v_host, u.stream, u.count, clock_timestamp(), clock_timestamp()
      from unnest(v_streams, v_expected, v_counts, outcomes) as u(stream, expected, count, outcome)
      where u.outcome is null and u.expected = 0
      on conflict on constraint pkey_mt_streams_tenant_id_id do nothing
      returning s.id, s.timestamp)
    select array_agg(array_position(v_streams, id)), array_agg(timestamp) into v_places, v_times from begun;
    for i in 1 .. coalesce(cardinality(v_places), 0) loop
      at[v_places[i]] := v_times[i];
    end loop;
  end if;

  for i in 1 .. v_size loop
    if at[i] is not null then
      outcomes[i] := 'appended';
      -- Whoever removed the last event, or its hash, is found by verify; the mountpoint goes on.
      v_hash := coalesce(v_heads[i], repeat('0', 64));
      v_micros := (extract(epoch from at[i]) * 1000000)::bigint;
      v_origin := jsonb_strip_nulls(jsonb_build_object('epoch', v_epochs[i], 'agent', v_agents[i]));
      for k in 1 .. v_counts[i] loop
        v_event := v_event + 1;
        v_header := v_origin || jsonb_build_object('prev', v_hash);
        v_hash := mountledger.ledger_event_hash(
          v_hash, v_host, v_streams[i], v_expected[i] + k, v_ids[v_event]::text, v_types[v_event], v_micros, v_actors[i],
          v_correlations[i], v_causations[i], v_data[v_event]::text, v_header::text);
        v_headers[v_event] := v_header || jsonb_build_object('hash', v_hash);
        hashes[v_event] := v_hash;
        seqs[v_event] := nextval('mountledger.mt_events_sequence');
        v_owners[v_event] := i;
        v_numbers[v_event] := v_expected[i] + k;
      end loop;
      v_heads[i] := v_hash;
      v_done := true;
      v_versions[i] := v_expected[i] + v_counts[i];
    else
      v_event := v_event + v_counts[i];
      if outcomes[i] is null then
        outcomes[i] := 'conflict';
        actual[i] := coalesce((select s.version from mountledger.mt_streams s where s.tenant_id = v_host and s.id = v_streams[i]), 0);
      end if;
      if v_requests[i] is not null and outcomes[i] <> 'duplicate' then
        delete from mountledger.request r where r.host = v_host and r.key = v_requests[i] ->> 'key';
      end if;
    end if;
  end loop;
  if not v_done then
    return;
  end if;

  insert into mountledger.mt_events (
    seq_id, id, stream_id, version, data, type, timestamp, tenant_id, mt_dotnet_type, correlation_id, causation_id,
    headers, user_name)
  select u.seq, u.id, v_streams[u.owner], u.number, u.data, u.type, at[u.owner], v_host, u.dotnet, v_correlations[u.owner],
    v_causations[u.owner], u.header, v_actors[u.owner]
  from unnest(seqs, v_ids, v_types, v_dotnet, v_data, v_headers, v_owners, v_numbers)
    as u(seq, id, type, dotnet, data, header, owner, number)
  where u.seq is not null;

  if v_of_host then
    v_done := mountledger.ledger_put_host(v_host, v_versions[1], at[1], v_heads[1], v_rows[1]);
  else
    v_done := mountledger.ledger_put_mountpoints(v_host, v_streams, v_versions, at, v_heads, v_rows);
    -- One by one, like the streams: a join would read all attachments of the host.
    if v_removed is not null then
      for i in 1 .. v_size loop
        if v_heads[i] is not null and v_removed[i] is not null then
          for k in 0 .. jsonb_array_length(v_removed[i]) - 1 loop
            delete from mountledger.attachment a
            where a.host = v_host and a.mountpoint = v_streams[i]
              and a.key = mountledger.ledger_attachment_key(v_removed[i] -> k ->> 'volume', v_removed[i] -> k ->> 'consumer');
          end loop;
        end if;
      end loop;
    end if;
    if v_added is not null then
      v_done := mountledger.ledger_put_attachments(v_host, v_streams, at, v_added);
    end if;
    if true = any(v_confirm_all) then
      for i in 1 .. v_size loop
        if v_confirm_all[i] and v_heads[i] is not null then
          update mountledger.attachment a set confirmed = true
          where a.host = v_host and a.mountpoint = v_streams[i] and not a.confirmed;
        end if;
      end loop;
    end if;
  end if;

  if false = any(v_local) then
    for i in 1 .. v_size loop
      if v_heads[i] is not null and not v_local[i] then
        perform pg_notify(
          mountledger.ledger_channel(v_host),
          case when octet_length(v_streams[i]) > 7900 then left(v_streams[i], 1975) else v_streams[i] end);
      end if;
    end loop;
  end if;
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
