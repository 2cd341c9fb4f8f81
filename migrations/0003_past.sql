-- The state at a time. Both tables can be made again from the events; the agents do it in the background, and nothing depends on how far they have come but speed.

-- Where the fold of a mountpoint can begin: a mount that was requested right after an unmount. By the rules nobody was attached then and nothing was mounted.
create table mountledger.clean_slate (
  host text not null,
  mountpoint text not null,
  at timestamptz not null,
  version bigint not null,
  constraint clean_slate_key primary key (host, mountpoint, at, version)
);

-- Up to which event of a host they have been looked for.
create table mountledger.clean_slate_progress (
  host text not null constraint clean_slate_progress_key primary key,
  seq_id bigint not null
) with (fillfactor = 50);
