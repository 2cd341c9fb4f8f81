-- The ledger: event tables in the layout of Marten 9 (string stream identity, conjoined tenancy, all metadata columns),
-- and the read models beside them. tenant_id is the host, stream_id the mountpoint (or @host, the host's own stream).
-- The functions that write them are in 0002_append.sql. Schema, roles and the table schema_migration are the migrator's.

-- Marten's tables: see docs/events.md. Nothing of ours is added to their columns.

create table mountledger.mt_streams (
  tenant_id varchar not null default '*DEFAULT*',
  id varchar not null,
  type varchar,
  version bigint,
  timestamp timestamptz not null default now(),
  created timestamptz not null default now(),
  is_archived boolean default false,
  constraint pkey_mt_streams_tenant_id_id primary key (tenant_id, id)
) with (fillfactor = 80);

create table mountledger.mt_events (
  seq_id bigint not null,
  id uuid not null,
  stream_id varchar,
  version bigint not null,
  data jsonb not null,
  bdata bytea,
  type varchar(500) not null,
  timestamp timestamptz not null,
  tenant_id varchar default '*DEFAULT*',
  mt_dotnet_type varchar,
  correlation_id varchar,
  causation_id varchar,
  headers jsonb,
  user_name varchar,
  is_archived boolean default false,
  constraint pkey_mt_events_seq_id primary key (seq_id),
  constraint fkey_mt_events_tenant_id_stream_id foreign key (tenant_id, stream_id) references mountledger.mt_streams (tenant_id, id)
);

create unique index pk_mt_events_stream_and_version on mountledger.mt_events (tenant_id, stream_id, version);

-- Ours: the history of one host, and of one consumer or volume, read in order without a sort.
create index history_host on mountledger.mt_events (tenant_id, seq_id);
create index history_consumer on mountledger.mt_events ((data ->> 'consumer'), seq_id) where data ->> 'consumer' is not null;
create index history_volume on mountledger.mt_events ((data ->> 'volume'), seq_id) where data ->> 'volume' is not null;

create table mountledger.mt_event_progression (
  name varchar not null,
  last_seq_id bigint,
  last_updated timestamptz default transaction_timestamp(),
  constraint pk_mt_event_progression primary key (name)
);

create table mountledger.mt_high_water_skips (
  ending_sequence bigint not null primary key,
  starting_sequence bigint not null,
  timestamp timestamptz default transaction_timestamp()
);

create sequence mountledger.mt_events_sequence as bigint cache 1 owned by mountledger.mt_events.seq_id;

-- Read models. All of them but request and the lease can be rebuilt from the events.

-- The folded state of each stream; action and due_at drive the executor: its work list is the rows of its host whose action is not none. No index
-- but the key: what is indexed changes with each append, and PostgreSQL then writes to all indexes and cannot reuse the row's page.
create table mountledger.mountpoint (
  host text not null,
  mountpoint text not null,
  version bigint not null,
  phase text not null,
  action text not null,
  due_at timestamptz,
  generation bigint not null,
  source text,
  fstype text,
  options text[] not null,
  boot_id text,
  mount_id numeric(20),
  error_operation text,
  error_errno text,
  error_message text,
  retry_at timestamptz,
  state jsonb not null,
  head_hash text not null,
  updated_at timestamptz not null,
  constraint mountpoint_key primary key (host, mountpoint)
) with (fillfactor = 70);

-- Who needs a mountpoint. key is the SHA-256 of (volume, consumer): the names and the path together can be longer than
-- the 2704 bytes that a b-tree entry may have.
create table mountledger.attachment (
  host text not null,
  mountpoint text not null,
  key bytea not null,
  volume text not null,
  consumer text not null,
  on_failure text not null,
  first boolean not null,
  confirmed boolean not null,
  since timestamptz not null,
  actor text not null,
  constraint attachment_key primary key (host, mountpoint, key)
);

create index attachment_consumer on mountledger.attachment (consumer);
create index attachment_volume on mountledger.attachment (volume);

-- A host: the folded state of its own stream, and the lease of the agent that serves it. Never deleted: epoch only grows.
create table mountledger.host (
  host text not null constraint host_key primary key,
  version bigint not null default 0,
  up boolean not null default true,
  down_reason text,
  down_by text,
  down_since timestamptz,
  agent_epoch bigint,
  agent_id text,
  agent_machine_id text,
  agent_boot_id text,
  agent_kernel text,
  agent_version text,
  agent_started_at timestamptz,
  head_hash text,
  updated_at timestamptz,
  epoch bigint not null default 0,
  lease_agent text,
  lease_machine_id text,
  lease_boot_id text,
  lease_expires_at timestamptz
) with (fillfactor = 50);

-- Idempotency keys, kept for 24 hours. version is the stream's after the request's own events; answer is the JSON text as it was answered, null while the outcome is not known.
create table mountledger.request (
  host text not null,
  key text not null,
  actor text not null,
  body_hash text not null,
  mountpoint text,
  version bigint,
  status integer,
  answer text,
  created timestamptz not null default clock_timestamp(),
  constraint request_key primary key (host, key)
) with (fillfactor = 80);

create index request_created on mountledger.request (created);

-- Statistics. By default a sample of 30 000 rows is taken for each, columns that no query asks for included, every time a tenth has been added: in
-- a ledger that is busy, a tenth of what the server does. No query here depends on more than a rough idea of what is frequent.
do $$
declare
  v_column record;
begin
  for v_column in
    select a.attrelid::regclass as owner, a.attname as name,
      case when a.attrelid = 'mountledger.mt_events'::regclass and a.attname = 'id' or a.attname in (
          'data', 'bdata', 'mt_dotnet_type', 'correlation_id', 'causation_id', 'headers', 'key', 'source', 'options', 'boot_id', 'mount_id',
          'error_operation', 'error_errno', 'error_message', 'state', 'head_hash') then 0 else 10 end as target
    from pg_attribute a
    where a.attnum > 0 and not a.attisdropped
      and a.attrelid in (
        'mountledger.mt_streams'::regclass, 'mountledger.mt_events'::regclass, 'mountledger.mountpoint'::regclass, 'mountledger.attachment'::regclass)
  loop
    execute format('alter table %s alter column %I set statistics %s', v_column.owner, v_column.name, v_column.target);
  end loop;
end
$$;
alter index mountledger.history_consumer alter column 1 set statistics 10;
alter index mountledger.history_volume alter column 1 set statistics 10;
