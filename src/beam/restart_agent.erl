%% restart_agent: tells restart_exporter what the supervisors of this node do.
%%
%% One module without dependencies, for OTP 24 and later and for every Elixir on it. It changes nothing that the node does or prints.
%%
%%     restart_agent:child_spec(Opts)    one line in a supervision tree; in Elixir {:restart_agent, address: "..."}
%%     restart_agent:start(Opts)         by hand in a remote shell, or from the command line: erl ... -s restart_agent
%%     restart_agent:stop()              stops, and leaves nothing behind
%%     restart_agent:status()            connected or not and why, counters
%%
%% Opts is a map or a keyword list. What is absent comes from the application environment of restart_agent, then from the
%% environment of the system, then from the defaults:
%%
%%     address     "127.0.0.1:8470", "[::1]:8470" or "unix:PATH"   RESTART_EXPORTER_ADDRESS   127.0.0.1:8470
%%     token       what the exporter asks for beyond loopback      RESTART_EXPORTER_TOKEN     none
%%     labels      pairs that are sent along, such as {dc, "eu"}                              none
%%     telemetry   also emit the events on the node                                           false
%%
%% == How it works ==
%%
%% A primary filter of logger, the tap, sees every report of every supervisor, in the supervisor. It copies a bounded part of the
%% report, never start arguments, into a table, and lets logger go on as if it were not there. The agent takes the events from
%% the table and ships them. When 20,000 wait, the tap counts instead of copying, until none waits: details are lost, counts never
%% are, and what was counted has its place in the order of the events.
%% A keeper owns the tables and restarts the agent, so that an agent that is killed loses nothing, and so that the supervisor of
%% the application never has to restart anything.
%%
%% == How the wire schema, version 1, is read here ==
%%
%%  - Seq numbers what is counted: events, `down` and `agg`, in the order in which they are sent. The agent leaves no gap. `agg`
%%    carries its Seq as a fifth element, {agg, FromUs, ToUs, Rows, Seq}, and so is acked and resumed as the others are.
%%    Numbers begin at 1 with an incarnation. The first number of a stream that the exporter does not know (it was restarted) is
%%    where the stream begins, whatever it is: what is before was acked.
%%  - A row of `agg` ends with the child: {SupKey, Kind, RestartType, Class, Count, Child}, Child as in `ev`.
%%  - A `sup` with a Key that was sent before replaces what was said: name and parent are known at once, the strategy when the
%%    supervisor was asked. A key in use by events that were not acked is in every snapshot, be its supervisor gone or not.
%%  - Only the reports of a supervisor have an Id: the id `undefined` of dynamic children, and ids that hold pids, references or
%%    functions and so differ from start to start, are <<"undefined">>: the Mfa is the child's name then.
%%  - Mfa is written as the language does it: m:f/1 and My.Module.f/1. The arity is absent where OTP does not keep the arguments
%%    (temporary children): m:f. Names of Elixir modules have no "Elixir." before them.
%%  - Name is <<>> for an unnamed supervisor.
%%  - The reason of `started` is {normal, <<>>, <<>>}. Detail is empty where the class says it all (normal, shutdown, killed).
%%  - Flag: `restarting` with start_error when the pid is {restarting, Pid} (Pid is sent); `init` with start_error of a supervisor
%%    that was not seen to run before; `api` with `started` when OTP says so (27.1 and later); else `none`.
%%  - {progress, 0} in the welcome: `started` is not sent.
-module(restart_agent).

-ifdef(OTP_RELEASE).
-if(?OTP_RELEASE < 24).
-error("restart_agent needs Erlang/OTP 24 or later").
-endif.
-else.
-error("restart_agent needs Erlang/OTP 24 or later").
-endif.

-behaviour(gen_server).

-export([child_spec/1, start/0, start/1, start_link/1, stop/0, status/0]).
-export([tap/2, outline/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).
%% OTP 25 has a callback of one argument, OTP 27 warns of the one with two.
-if(?OTP_RELEASE >= 25).
-export([format_status/1]).
-else.
-export([format_status/2]).
-endif.

-define(VERSION, <<"1.0.0">>).
-define(AGENT, ?MODULE).
-define(KEEPER, restart_agent_keeper).
-define(DEFAULT_ADDRESS, "127.0.0.1:8470").

%% Events that wait for the agent; beyond, the tap aggregates until none waits.
-define(MAX_WAITING, 20000).
%% Events that wait for an ack; beyond, the agent takes none from the tap.
-define(MAX_UNACKED, 10000).
%% Rows of the aggregate, and supervisors that are known at a time; beyond, events are counted as lost.
-define(MAX_ROWS, 20000).
-define(MAX_SUPERVISORS, 10000).
%% Events in a frame, and how long the first of them waits for the others.
-define(BATCH, 100).
-define(BATCH_MS, 20).
%% More bytes than any event has.
-define(MAX_EVENT, 1024).
%% Events that wait for the telemetry handlers of the node; beyond, they are not told. After this time a dynamic child is back.
-define(MAX_EMITTED, 1000).
-define(INFER_MS, 1000).
%% Terms whose text is kept.
-define(MAX_TEXTS, 500).
%% Events that are taken before other messages of the agent have their turn.
-define(TURN, 1000).

-define(TICK_MS, 1000).
-define(CHECK_TAP_MS, 5000).
-define(RESCAN_MS, 60000).
-define(HEARTBEAT_MS, 5000).
-define(CONNECT_MS, 5000).
-define(WELCOME_MS, 5000).
-define(SEND_MS, 2000).
-define(BACKOFF_MIN_MS, 100).
-define(BACKOFF_MAX_MS, 10000).

%% A supervisor is asked how it is configured only if it is idle; some are asked at once, many with a pause after each.
-define(ASK_MAX_QUEUE, 10).
%% Children of a supervisor that are looked at to find the supervisors among them, and counted where that takes long.
-define(ASK_MAX_CHILDREN, 10000).
%% Supervisors among the children of one whose ids are taken along.
-define(MAX_NESTED, 1000).
-define(ASK_MS, 500).
-define(ASK_AT_ONCE, 100).
-define(ASK_PAUSE_MS, 20).
%% Processes that are looked at in one go when supervisors are searched.
-define(SCAN_SLICE, 500).

-define(MAX_LABELS, 32).
%% Bytes of a name and of a detail.
-define(MAX_NAME, 64).
-define(MAX_DETAIL, 256).
%% Terms, nesting and elements that the tap copies of a reason or an id.
-define(MAX_TERMS, 64).
-define(MAX_DEPTH, 6).
-define(MAX_ELEMENTS, 8).

%% The counters, in one atomics array.
-define(NUMBER, 1).        % events in the order of the tap
-define(SEEN, 2).          % reports seen
-define(AGGREGATED, 3).    % of them counted without details
-define(LOST, 4).          % of them lost
-define(SENT, 5).          % of them sent
-define(REINSTALLS, 6).    % how often the tap had to be installed again
-define(GENERATION, 7).    % which tap is the one that counts
-define(SEQ, 8).           % last number on the wire
-define(ACKED, 9).         % last number that was acked
-define(KEY, 10).          % last key of a supervisor
-define(SKIPPED, 11).      % supervisors that were not asked for their state
-define(OVER, 12).         % supervisors beyond the limit
-define(TAKEN, 13).        % events taken from the tap's table
-define(PHASE, 14).        % even: the tap copies; odd: it counts
-define(COUNTERS, 14).

-define(MODULES, [supervisor, supervisor_bridge]).
-define(FILTERS, {restart_agent, restart_agent_2}).

%% What outlives an agent.
-record(shared, {
    counters,    % atomics
    waiting,     % ordered_set {Number, Entry}: from the tap to the agent
    unacked,     % set {Seq, Number, Pid of a supervisor that is down | undefined, Record}
    sums,        % ordered_set {{Phase, Pid, Kind, Class, Child}, Count, Name, Seq of the record that has them}: what the tap counted
    sups,        % set {Pid, Key, #sup{}}
    incarnation  % 16 random bytes
}).

-record(keeper, {shared, options, agent, attempts = 0, started_ms}).

-record(agent, {
    shared, options,
    phase = idle,        % idle | connecting | hello | live
    socket, helper, attempts = 0, last_error = none,
    sent = 0,            % last number sent on this connection
    resumed = 0,         % number after which this connection began
    told = #{},          % keys that were sent on this connection
    progress = true,     % does the exporter want `started`?
    batch = ?BATCH,      % events in a frame
    heartbeat_ms = ?HEARTBEAT_MS,
    drain = false,       % is a message to take events under way?
    sums_since,          % microseconds
    texts = #{},         % terms as they were written lately
    asker, scanner, logger_ref,
    emitter              % process that emits telemetry, or undefined
}).

-record(sup, {
    kind = unnamed, name = <<>>, module = <<>>, behaviour = other, app, parent, id,
    strategy = unknown, intensity = -1, period = -1, auto_shutdown = unknown, counts = unknown,
    seen_us,
    runs = false,        % was it seen to run, as opposed to start?
    asked = false,       % has it answered?
    settled = false,     % is all known that there is to know, or was it asked in vain?
    down = false         % has it ended? Then it is kept until that is acked
}).

%% === API ===

%% The agent as a child of a supervisor. It never fails to start and never makes its supervisor restart it, unless its keeper is killed.
child_spec(Opts) ->
    Hidden = hide(Opts),
    #{id => ?MODULE, start => {?MODULE, start_link, [Hidden]}, restart => transient, shutdown => 5000, type => worker, modules => [?MODULE]}.

start_link(Opts) ->
    case options(Opts) of
        {ok, Options} ->
            case gen_server:start_link({local, ?KEEPER}, ?MODULE, {keeper, Options}, []) of
                {error, {already_started, _}} -> ignore;
                Started -> Started
            end;
        {error, Reason} ->
            %% Telemetry must not take an application down. This is the only line that the agent ever logs.
            logger:error("restart_agent is not started: ~0tp", [Reason]),
            ignore
    end.

start() -> start([]).

%% Starts without a supervisor. Also from a remote shell: it does not end with the shell.
start(Opts) ->
    case options(Opts) of
        {ok, Options} -> gen_server:start({local, ?KEEPER}, ?MODULE, {keeper, Options}, []);
        {error, _} = Error -> Error
    end.

%% Removes the tap, restores the levels, says bye to the exporter.
stop() ->
    case whereis(?KEEPER) of
        undefined -> {error, not_started};
        Pid -> gen_server:stop(Pid, normal, 10000)
    end.

status() ->
    case whereis(?AGENT) of
        undefined -> {error, not_started};
        Pid -> gen_server:call(Pid, status)
    end.

%% === options ===

%% A function, because child specifications are printed in reports and a token must not be.
hide(Opts) when is_function(Opts, 0) -> Opts;
hide(Opts) -> fun() -> Opts end.

options(Opts) when is_function(Opts, 0) -> options(Opts());
options(Opts) when is_list(Opts) ->
    try maps:from_list(Opts) of
        Map -> options(Map)
    catch
        error:_ -> {error, {options, "a map or a keyword list is wanted"}}
    end;
options(Opts) when is_map(Opts) ->
    case maps:keys(Opts) -- [address, token, labels, telemetry] of
        [] ->
            try
                Address = address(option(address, Opts, "RESTART_EXPORTER_ADDRESS", ?DEFAULT_ADDRESS)),
                Token = option(token, Opts, "RESTART_EXPORTER_TOKEN", undefined),
                Labels = labels(option(labels, Opts, false, [])),
                Telemetry = option(telemetry, Opts, false, false) =:= true,
                Hidden = hide(case Token of undefined -> undefined; _ -> unicode:characters_to_binary(Token) end),
                {ok, #{address => Address, token => Hidden, labels => Labels, telemetry => Telemetry}}
            catch
                throw:Reason -> {error, Reason};
                error:_ -> {error, {options, "address and token are text, labels are pairs of text"}}
            end;
        Unknown -> {error, {unknown_options, Unknown, "known are address, token, labels, telemetry"}}
    end;
options(_) -> {error, {options, "a map or a keyword list is wanted"}}.

option(Key, Opts, Variable, Default) ->
    case Opts of
        #{Key := Value} when Value =/= undefined, Value =/= nil -> Value;
        _ ->
            case application:get_env(?MODULE, Key) of
                {ok, Value} -> Value;
                undefined when Variable =:= false -> Default;
                undefined -> os:getenv(Variable, Default)
            end
    end.

address(Text) ->
    case unicode:characters_to_list(Text) of
        "unix:" ++ [_ | _] = Unix -> {local, unicode:characters_to_binary(lists:nthtail(5, Unix))};
        Address ->
            {Host, Port} = case string:split(Address, ":", trailing) of
                [H, P] -> {string:trim(H, both, "[]"), P};
                [_] -> throw({bad_address, Address, "HOST:PORT or unix:PATH is wanted"})
            end,
            case string:to_integer(Port) of
                {Number, []} when Number > 0, Number < 65536, Host =/= [] ->
                    %% An address needs no resolver, and starts none.
                    case inet:parse_address(Host) of
                        {ok, Ip} -> {Ip, Number};
                        {error, _} -> {Host, Number}
                    end;
                _ -> throw({bad_address, Address, "HOST:PORT or unix:PATH is wanted"})
            end
    end.

labels(Labels) when is_map(Labels) -> labels(maps:to_list(Labels));
labels(Labels) when is_list(Labels) -> lists:sublist([{label(Key), label(Value)} || {Key, Value} <- Labels], ?MAX_LABELS).

label(Atom) when is_atom(Atom) -> cut(atom_to_binary(Atom, utf8), ?MAX_NAME);
label(Text) -> cut(unicode:characters_to_binary(Text), ?MAX_NAME).

%% === the tap, which runs in supervisors ===

%% A primary filter. Never raises, because logger removes a filter that does; never answers with the event, because that would
%% bypass the filters after it.
tap(#{msg := {report, #{label := {supervisor, Label}, report := Report}}, level := Level, meta := #{pid := Pid} = Meta}, Tap)
  when node(Pid) =:= node() ->
    {_, _, Counters, _, _} = Tap,
    try
        record(Label, Report, Level, Pid, Meta, Tap)
    catch
        _:_ -> atomics:add(Counters, ?LOST, 1)
    end,
    verdict(Level, Meta, Tap);
tap(#{level := Level, meta := Meta}, Tap) ->
    verdict(Level, Meta, Tap).

%% What only the raised level of the module let through does not go on.
verdict(Level, #{mfa := {supervisor, _, _}}, {_, {Threshold, _}, _, _, _}) -> verdict(Level, Threshold);
verdict(Level, #{mfa := {supervisor_bridge, _, _}}, {_, {_, Threshold}, _, _, _}) -> verdict(Level, Threshold);
verdict(_, _, _) -> ignore.

verdict(Level, Threshold) ->
    Wanted = case Threshold of
        %% For a module without a level of its own: quicker than a look at the configuration.
        primary -> logger:allow(Level, restart_agent_primary);
        _ -> logger:compare_levels(Level, Threshold) =/= lt
    end,
    case Wanted of
        true -> ignore;
        false -> stop
    end.

record(Label, Report, Level, Sup, Meta, {Generation, _, Counters, Waiting, Sums}) ->
    %% Two taps stand in the list for a moment while one takes the other's place.
    case atomics:get(Counters, ?GENERATION) of
        Generation ->
            atomics:add(Counters, ?SEEN, 1),
            {_, Name} = lists:keyfind(supervisor, 1, Report),
            {Kind, Item, {Class, Reason}} = case Label of
                progress -> {started, field(started, Report), {normal, normal}};
                _ -> {kind(Label), field(offender, Report), classify(field(reason, Report))}
            end,
            Child = {
                limit(field(id, Item, field(name, Item))), mfa(field(mfargs, Item, field(mfa, Item))),
                word(field(restart_type, Item)), word(field(child_type, Item)), shutdown(field(shutdown, Item)),
                field(significant, Item)
            },
            N = case field(nb_children, Item) of
                undefined -> 1;
                Children -> Children
            end,
            Dynamic = not is_map_key(mfa, Meta),
            case room(Counters, Waiting) of
                {waiting, Size} ->
                    Entry = {event, Sup, limit(Name), Dynamic, Kind, Level, maps:get(time, Meta), Child, field(pid, Item), N, Class, Reason},
                    ets:insert(Waiting, {atomics:add_get(Counters, ?NUMBER, 1), Entry}),
                    Size =:= 0 andalso wake(wake),
                    Size =:= ?BATCH andalso wake(drain);
                {counting, Phase} ->
                    Row = {Phase, Sup, Kind, Class, Child},
                    case ets:info(Sums, size) < ?MAX_ROWS orelse ets:member(Sums, Row) of
                        true ->
                            ets:update_counter(Sums, Row, {2, N}, {Row, 0, limit(Name), 0}),
                            atomics:add(Counters, ?AGGREGATED, 1);
                        false -> atomics:add(Counters, ?LOST, 1)
                    end
            end;
        _ -> ok
    end.

%% The agent ends a phase of counting when no event waits. So a supervisor's reports of one phase all come after those of the phase
%% before, and a start never comes before the death that led to it.
room(Counters, Waiting) ->
    case atomics:get(Counters, ?PHASE) of
        Phase when Phase band 1 =:= 1 -> {counting, Phase};
        Phase ->
            case ets:info(Waiting, size) of
                Size when Size < ?MAX_WAITING -> {waiting, Size};
                _ ->
                    %% The agent may have taken all by now, and would not look again.
                    atomics:compare_exchange(Counters, ?PHASE, Phase, Phase + 1) =:= ok andalso wake(wake),
                    {counting, Phase + 1}
            end
    end.

wake(Message) ->
    case whereis(?AGENT) of
        undefined -> ok;
        Pid -> Pid ! Message
    end.

kind(child_terminated) -> terminated;
kind(start_error) -> start_error;
kind(shutdown) -> max_intensity;
kind(shutdown_error) -> shutdown_error;
kind(error) -> terminated.

field(Key, List) -> field(Key, List, undefined).

field(Key, List, Default) ->
    case lists:keyfind(Key, 1, List) of
        {_, Value} -> Value;
        false -> Default
    end.

%% Never the arguments: they hold functions, configuration, secrets.
mfa({M, F, Args}) when is_atom(M), is_atom(F), is_list(Args) -> {M, F, length(Args)};
mfa({M, F, _}) when is_atom(M), is_atom(F) -> {M, F, undefined};
mfa(_) -> undefined.

%% Foreign supervisors have types of their own, such as {permanent, Delay}.
word(Word) when is_atom(Word) -> Word;
word(Tuple) when is_tuple(Tuple), tuple_size(Tuple) > 0, is_atom(element(1, Tuple)) -> element(1, Tuple);
word(_) -> other.

shutdown(brutal_kill) -> -2;
shutdown(Ms) when is_integer(Ms), Ms >= 0, Ms < 1 bsl 60 -> Ms;
shutdown(_) -> -1.

%% The class of a reason and as much of it as is kept. Arguments in a stack become their number.
classify(normal) -> {normal, normal};
classify(shutdown) -> {shutdown, shutdown};
classify({shutdown, _} = Reason) -> {shutdown, limit(Reason)};
classify(killed) -> {killed, killed};
classify(reached_max_restart_intensity) -> {max_intensity, reached_max_restart_intensity};
classify({'EXIT', Reason}) -> classify(Reason);
classify({{nocatch, Value}, [{M, F, _, _} | _] = Stack}) when is_atom(M), is_atom(F) -> {throw, {limit(Value), frame(Stack)}};
classify({Reason, [{M, F, _, _} | _] = Stack}) when is_atom(M), is_atom(F) -> {error, {limit(Reason), frame(Stack)}};
classify(noproc) -> {noproc, noproc};
classify({noproc, _} = Reason) -> {noproc, limit(Reason)};
classify(timeout) -> {timeout, timeout};
classify({timeout, _} = Reason) -> {timeout, limit(Reason)};
classify(noconnection) -> {nodedown, noconnection};
classify({nodedown, _} = Reason) -> {nodedown, limit(Reason)};
classify(Reason) -> {exit, limit(Reason)}.

%% The frame that a reader wants: the first that has a line, else the first.
frame([First | _] = Stack) -> frame(Stack, First, 4).

frame([{M, F, A, [{file, File}, {line, Line} | _]} | _], _, _) when is_atom(M), is_atom(F), is_integer(Line) ->
    {M, F, arity(A), limit(File), Line};
frame([_ | Rest], First, Left) when Left > 0 -> frame(Rest, First, Left - 1);
frame(_, {M, F, A, _}, _) -> {M, F, arity(A), undefined, 0}.

%% What looks like a frame of a stack may be a reason of the application's own.
arity(A) when is_integer(A) -> A;
arity(A) when is_list(A) -> try length(A) catch error:_ -> undefined end;
arity(_) -> undefined.

%% A copy of bounded size, which holds on to nothing large.
limit(Term) -> element(1, limit(Term, ?MAX_DEPTH, ?MAX_TERMS)).

limit(_, _, 0) -> {'...', 0};
limit(Term, _, Left) when is_atom(Term); is_float(Term); is_pid(Term); is_reference(Term); is_port(Term) -> {Term, Left - 1};
limit(Term, _, Left) when is_integer(Term), Term < 1 bsl 63, Term >= -1 bsl 63 -> {Term, Left - 1};
limit(Term, _, Left) when is_binary(Term) -> {own(Term), Left - 1};
limit(Term, _, Left) when is_function(Term) ->
    %% An external function has the same name and no environment.
    [{module, M}, {name, F}, {arity, A}] = [erlang:fun_info(Term, Item) || Item <- [module, name, arity]],
    {erlang:make_fun(M, F, A), Left - 1};
limit([], _, Left) -> {[], Left - 1};
limit(_, 0, Left) -> {'...', Left - 1};
limit(Term, Depth, Left) when is_tuple(Term) ->
    {Elements, Rest} = limit_list([element(I, Term) || I <- lists:seq(1, min(tuple_size(Term), ?MAX_ELEMENTS))], Depth, Left - 1, ?MAX_ELEMENTS),
    {list_to_tuple(Elements), Rest};
limit([Char | _] = Text, Depth, Left) when is_integer(Char), Char >= $\s ->
    case characters(Text, ?MAX_DETAIL) of
        false -> limit_list(Text, Depth, Left - 1, ?MAX_ELEMENTS);
        Short -> {Short, Left - 1}
    end;
limit(List, Depth, Left) when is_list(List) -> limit_list(List, Depth, Left - 1, ?MAX_ELEMENTS);
limit(#{'__struct__' := Struct, '__exception__' := true, message := Message}, _, Left) when is_binary(Message) ->
    {#{'__struct__' => Struct, '__exception__' => true, message => own(Message)}, Left - 1};
limit(Map, Depth, Left) when is_map(Map) ->
    {Pairs, Rest} = limit_map(maps:next(maps:iterator(Map)), Depth - 1, Left - 1, ?MAX_ELEMENTS, []),
    Kept = maps:from_list(Pairs),
    {case Map of
        #{'__struct__' := Struct} -> Kept#{'__struct__' => Struct};
        _ -> Kept
    end, Rest};
limit(_, _, Left) -> {'...', Left - 1}.

limit_list([], _, Left, _) -> {[], Left};
limit_list([_ | _], _, Left, Elements) when Left =:= 0; Elements =:= 0 -> {['...'], Left};
limit_list([Head | Tail], Depth, Left, Elements) ->
    {Kept, Left1} = limit(Head, Depth - 1, Left),
    {Rest, Left2} = limit_list(Tail, Depth, Left1, Elements - 1),
    {[Kept | Rest], Left2};
limit_list(Tail, Depth, Left, _) ->
    {Kept, Rest} = limit(Tail, Depth - 1, Left),
    {[Kept], Rest}.

limit_map({Key, Value, Next}, Depth, Left, Elements, Pairs) when Left > 0, Elements > 0, Depth > 0 ->
    {Key1, Left1} = limit(Key, Depth, Left),
    {Value1, Left2} = limit(Value, Depth, Left1),
    limit_map(maps:next(Next), Depth, Left2, Elements - 1, [{Key1, Value1} | Pairs]);
limit_map(_, _, Left, _, Pairs) -> {Pairs, Left}.

%% A list of characters, cut; false if it is something else.
characters([], _) -> [];
characters(_, 0) -> "...";
characters([Char | Rest], Left) when is_integer(Char), Char >= $\t, Char =< 16#10ffff ->
    case characters(Rest, Left - 1) of
        false -> false;
        Text -> [Char | Text]
    end;
characters(_, _) -> false.

%% A binary that is short and no part of a longer one.
own(Binary) when byte_size(Binary) > ?MAX_DETAIL -> binary:copy(binary:part(Binary, 0, ?MAX_DETAIL));
own(Binary) ->
    case binary:referenced_byte_size(Binary) > byte_size(Binary) of
        true -> binary:copy(Binary);
        false -> Binary
    end.

%% === the tap is put in place, and taken away ===

%% Is ours the first filter, and are the levels ours? If not, makes it so; says whether it had to.
ensure_tap(#shared{counters = Counters} = Shared) ->
    #{filters := Filters} = logger:get_primary_config(),
    Generation = atomics:get(Counters, ?GENERATION),
    Levels = [level_of(Module) || Module <- ?MODULES],
    case Filters of
        [{_, {_, {Generation, _, Counters, _, _}}} | _] when Levels =:= [debug, debug] -> false;
        _ ->
            Before = [Thresholds || {Id, {_, {_, Thresholds, _, _, _}}} <- Filters, is_ours(Id)],
            install_tap(Shared, Generation + 1, thresholds(Levels, Before)),
            Generation > 0 andalso atomics:add(Counters, ?REINSTALLS, 1),
            true
    end.

check_tap(S) ->
    case ensure_tap(S#agent.shared) of
        true -> send_stats(S);
        false -> S
    end.

%% The level below which others see nothing of a module: the primary one, or what someone set for the module. Ours is debug.
thresholds([Supervisor, Bridge], Before) ->
    {Supervisor0, Bridge0} = case Before of
        [Known | _] -> Known;
        [] -> {Supervisor, Bridge}
    end,
    {threshold(Supervisor, Supervisor0), threshold(Bridge, Bridge0)}.

threshold(debug, Before) -> Before;
threshold(Now, _) -> Now.

level_of(Module) ->
    case logger:get_module_level(Module) of
        [{_, Level}] -> Level;
        [] -> primary
    end.

is_ours(Id) -> Id =:= element(1, ?FILTERS) orelse Id =:= element(2, ?FILTERS).

%% The new tap is in the list before the old one leaves it, and the generation decides which of them counts: no report is missed or
%% counted twice, and none below the level slips through to others.
install_tap(#shared{counters = Counters, waiting = Waiting, sums = Sums}, Generation, Thresholds) ->
    New = element(1 + Generation rem 2, ?FILTERS),
    Old = element(2 - Generation rem 2, ?FILTERS),
    _ = logger:remove_primary_filter(New),
    ok = logger:add_primary_filter(New, {fun ?MODULE:tap/2, {Generation, Thresholds, Counters, Waiting, Sums}}),
    atomics:put(Counters, ?GENERATION, Generation),
    _ = logger:remove_primary_filter(Old),
    ok = logger:set_module_level(?MODULES, debug).

remove_tap() ->
    #{filters := Filters} = logger:get_primary_config(),
    case [{Id, Thresholds} || {Id, {_, {_, Thresholds, _, _, _}}} <- Filters, is_ours(Id)] of
        [] -> ok;
        [{_, {Supervisor, Bridge}} | _] = Ours ->
            restore_level(supervisor, Supervisor),
            restore_level(supervisor_bridge, Bridge),
            lists:foreach(fun({Id, _}) -> logger:remove_primary_filter(Id) end, Ours)
    end.

restore_level(Module, Threshold) ->
    case {level_of(Module), Threshold} of
        {debug, primary} -> logger:unset_module_level(Module);
        {debug, Level} -> logger:set_module_level(Module, Level);
        %% Someone has set another one since.
        _ -> ok
    end.

%% === gen_server: keeper and agent ===

init({keeper, Options}) ->
    process_flag(trap_exit, true),
    %% Output of a process that was started in a remote shell would go there, and logger would send its events along.
    node(group_leader()) =:= node() orelse group_leader(whereis(init), self()),
    Shared = #shared{
        counters = atomics:new(?COUNTERS, [{signed, true}]),
        waiting = ets:new(restart_agent_waiting, [ordered_set, public]),
        unacked = ets:new(restart_agent_unacked, [set, public]),
        sums = ets:new(restart_agent_sums, [ordered_set, public, {write_concurrency, true}, {decentralized_counters, false}]),
        sups = ets:new(restart_agent_sups, [set, public]),
        incarnation = incarnation()
    },
    {ok, start_agent(#keeper{shared = Shared, options = Options})};
init({agent, Shared, Options}) ->
    process_flag(trap_exit, true),
    Now = erlang:system_time(microsecond),
    State = #agent{shared = Shared, options = Options, sums_since = Now, emitter = start_emitter(Options)},
    recover(Shared),
    ensure_tap(Shared),
    erlang:send_after(?TICK_MS, self(), tick),
    erlang:send_after(?CHECK_TAP_MS, self(), check_tap),
    erlang:send_after(?HEARTBEAT_MS, self(), heartbeat),
    %% What waits there must not be collected again and again with the answers.
    Asker = spawn_opt(fun() -> asker(?ASK_AT_ONCE, Shared) end, [link, {message_queue_data, off_heap}]),
    {ok, scan(watch_logger(State#agent{asker = Asker}))}.

handle_call(status, _, #agent{phase = Phase, last_error = Error, resumed = Resumed} = S) ->
    {reply, maps:from_list([{connection, Phase}, {last_error, Error}, {resumed, Resumed} | stats(S)]), S};
handle_call(_, _, S) -> {reply, {error, unknown_call}, S}.

handle_cast(_, S) -> {noreply, S}.

handle_info({'EXIT', Agent, _}, #keeper{agent = Agent} = S) ->
    Attempts = case erlang:monotonic_time(millisecond) - S#keeper.started_ms > ?RESCAN_MS of
        true -> 0;
        false -> S#keeper.attempts
    end,
    erlang:send_after(backoff(Attempts), self(), start_agent),
    {noreply, S#keeper{agent = undefined, attempts = Attempts + 1}};
handle_info(start_agent, #keeper{agent = undefined} = S) -> {noreply, start_agent(S)};
handle_info(_, #keeper{} = S) -> {noreply, S};

handle_info(wake, #agent{drain = false, emitter = Emitter} = S) ->
    %% Handlers on the node hear of an event at once; the exporter can wait for more to come.
    erlang:send_after(case Emitter of undefined -> ?BATCH_MS; _ -> 0 end, self(), drain),
    {noreply, S#agent{drain = true}};
handle_info(wake, S) -> {noreply, S};
handle_info(drain, S) -> {noreply, pump(S#agent{drain = false})};
handle_info(tick, S) ->
    erlang:send_after(?TICK_MS, self(), tick),
    is_pid(S#agent.emitter) andalso (S#agent.emitter ! tick),
    {noreply, nothing_counted(pump(S))};
handle_info(check_tap, S) ->
    erlang:send_after(?CHECK_TAP_MS, self(), check_tap),
    {noreply, watch_logger(check_tap(S))};
handle_info({check_tap_again, Times}, S) ->
    Times > 0 andalso erlang:send_after(?BACKOFF_MIN_MS, self(), {check_tap_again, Times - 1}),
    {noreply, check_tap(S)};
handle_info(heartbeat, S) ->
    erlang:send_after(S#agent.heartbeat_ms, self(), heartbeat),
    {noreply, send_stats(S)};
handle_info(rescan, S) -> {noreply, scan(S)};

handle_info({found, Found}, S) -> {noreply, lists:foldl(fun found/2, S, Found)};
handle_info({answer, Pid, Answer}, S) -> {noreply, answered(Pid, Answer, S)};
handle_info({'DOWN', Ref, process, _, _}, #agent{logger_ref = Ref} = S) ->
    %% Elixir's Logger stops, and takes every filter along that it did not know.
    self() ! {check_tap_again, 30},
    {noreply, S#agent{logger_ref = undefined}};
handle_info({'DOWN', _, process, Pid, Reason}, #agent{shared = Shared} = S) ->
    %% Behind what the supervisor reported before it ended.
    {Class, Kept} = classify(Reason),
    Number = atomics:add_get(Shared#shared.counters, ?NUMBER, 1),
    ets:insert(Shared#shared.waiting, {Number, {down, Pid, erlang:system_time(microsecond), Class, Kept}}),
    handle_info(wake, S);

handle_info(connect, #agent{phase = idle} = S) -> {noreply, connect(S)};
handle_info({connected, Helper, {ok, Socket}}, #agent{helper = Helper, phase = connecting} = S) ->
    erlang:send_after(?WELCOME_MS, self(), {no_welcome, Socket}),
    {noreply, hello(S#agent{socket = Socket, phase = hello})};
handle_info({connected, Helper, {error, Reason}}, #agent{helper = Helper, phase = connecting} = S) ->
    {noreply, disconnected(Reason, S)};
handle_info({no_welcome, Socket}, #agent{socket = Socket, phase = hello} = S) -> {noreply, disconnected(no_welcome, S)};
handle_info({tcp, Socket, Data}, #agent{socket = Socket} = S) -> {noreply, received(Data, S)};
handle_info({tcp_closed, Socket}, #agent{socket = Socket} = S) -> {noreply, disconnected(closed, S)};
handle_info({tcp_error, Socket, Reason}, #agent{socket = Socket} = S) -> {noreply, disconnected(Reason, S)};

handle_info({'EXIT', Scanner, _}, #agent{scanner = Scanner} = S) ->
    erlang:send_after(?RESCAN_MS, self(), rescan),
    S#agent.phase =:= idle andalso S#agent.attempts =:= 0 andalso (self() ! connect),
    {noreply, S#agent{scanner = undefined}};
handle_info({'EXIT', Asker, Reason}, #agent{asker = Asker} = S) -> {stop, Reason, S};
handle_info({'EXIT', Emitter, _}, #agent{emitter = Emitter} = S) -> {noreply, S#agent{emitter = start_emitter(S#agent.options)}};
handle_info({'EXIT', Helper, Reason}, #agent{helper = Helper, phase = connecting} = S) -> {noreply, disconnected(Reason, S)};
handle_info(_, S) -> {noreply, S}.

terminate(_, #keeper{agent = Agent}) ->
    remove_tap(),
    is_pid(Agent) andalso try gen_server:stop(Agent, normal, 4000) catch _:_ -> exit(Agent, kill) end;
terminate(Reason, #agent{shared = Shared} = S) ->
    case Reason of
        normal ->
            say_bye(ship(sum_up({'_', '_', '_', '_', '_'}, drain_all(S))), <<"stopped">>);
        _ ->
            %% The keeper is gone, and the tables with it. Or this is a defect: then the keeper starts the next agent at once.
            case whereis(?KEEPER) of
                undefined ->
                    remove_tap(),
                    Counters = Shared#shared.counters,
                    Left = atomics:get(Counters, ?SEEN) - atomics:get(Counters, ?AGGREGATED) - atomics:get(Counters, ?TAKEN),
                    atomics:add(Counters, ?LOST, max(0, Left)),
                    say_bye(S, <<"killed">>);
                _ -> ok
            end
    end.

%% What a crash or sys:get_status shows of the agent.
-if(?OTP_RELEASE >= 25).
format_status(Status) -> maps:map(fun(state, State) -> element(1, State); (_, Value) -> Value end, Status).
-else.
format_status(_, [_, State]) -> [{data, [{"State", element(1, State)}]}].
-endif.

start_agent(#keeper{shared = Shared, options = Options} = S) ->
    case gen_server:start_link({local, ?AGENT}, ?MODULE, {agent, Shared, Options}, [{spawn_opt, [{message_queue_data, off_heap}]}]) of
        {ok, Agent} -> S#keeper{agent = Agent, started_ms = erlang:monotonic_time(millisecond)};
        %% The agent of a keeper that was killed has not ended yet.
        {error, _} ->
            erlang:send_after(?BACKOFF_MIN_MS, self(), start_agent),
            S
    end.

%% Without crypto, which a release may lack.
incarnation() ->
    Seed = {erlang:system_time(), erlang:unique_integer(), erlang:monotonic_time(), node(), os:getpid(), make_ref(), self()},
    erlang:md5(term_to_binary(Seed)).

%% 0.1 s, doubled up to 10 s, half of it by chance so that many nodes do not come at the same time.
backoff(Attempts) ->
    Full = min(?BACKOFF_MAX_MS, ?BACKOFF_MIN_MS bsl min(Attempts, 10)),
    Full div 2 + rand:uniform(Full div 2).

%% === from the tap to the ring of what is not acked ===

%% What a dead agent had begun: an event that is in the ring is not taken again, and all known supervisors are monitored.
recover(#shared{counters = Counters, waiting = Waiting, unacked = Unacked, sups = Sups} = Shared) ->
    Last = atomics:get(Counters, ?SEQ),
    lists:foreach(fun(Seq) ->
        case ets:lookup(Unacked, Seq) of
            [{_, Number, Pid, _}] ->
                ets:delete(Waiting, Number),
                atomics:put(Counters, ?SEQ, Seq),
                [ets:insert(Sups, {Pid, Key, Sup#sup{down = true}}) || {_, Key, Sup} <- ets:lookup(Sups, Pid)],
                subtract(Seq, Number, Shared);
            [] -> ok
        end
    end, [Last, Last + 1]),
    ets:foldl(fun({Pid, _, Sup}, _) -> Sup#sup.down orelse monitor(process, Pid) end, ok, Sups).

%% Takes events, and ships what can be shipped.
pump(S) ->
    case take(S, ?TURN) of
        {more, S1} -> drain_soon(ship(S1), 0);
        {some, S1} -> drain_soon(ship(S1), ?BATCH_MS);
        {none, S1} -> ship(S1)
    end.

drain_soon(#agent{drain = true} = S, _) -> S;
drain_soon(S, Ms) ->
    erlang:send_after(Ms, self(), drain),
    S#agent{drain = true}.

%% All that waits, whatever the limits: there is no later.
drain_all(S) ->
    case take(S, all) of
        {none, S1} -> ship(S1);
        {_, S1} -> drain_all(ship(S1))
    end.

take(S, Left) -> take(S, Left, none).

take(S, 0, _) -> {more, S};
take(#agent{shared = #shared{counters = Counters, waiting = Waiting}} = S, Left, Any) ->
    Unacked = atomics:get(Counters, ?SEQ) - atomics:get(Counters, ?ACKED),
    %% Always the first: of one supervisor's events the elder is then never overtaken.
    case ets:first(Waiting) of
        _ when Unacked >= ?MAX_UNACKED, Left =/= all -> {none, S};
        '$end_of_table' ->
            Phase = atomics:get(Counters, ?PHASE),
            Phase band 1 =:= 1 andalso atomics:put(Counters, ?PHASE, Phase + 1),
            {Any, counted(S)};
        Number ->
            [{_, Entry}] = ets:lookup(Waiting, Number),
            S0 = counted(S),
            %% An event that cannot be read must not be met again and again.
            S1 = try read(Number, Entry, S0) catch error:_ -> atomics:add(Counters, ?LOST, 1), S0 end,
            ets:delete(Waiting, Number),
            take(S1, case Left of all -> all; _ -> Left - 1 end, some)
    end.

read(Number, {event, Pid, Name, Dynamic, Kind, Level, Time, Child, ChildPid, N, Class, Reason}, S) ->
    Counters = S#agent.shared#shared.counters,
    atomics:add(Counters, ?TAKEN, 1),
    Wanted = S#agent.progress orelse Kind =/= started,
    case know(Pid, #{name => Name, dynamic => Dynamic}, S) of
        {ok, Key, S1} ->
            S2 = child_started(Kind, Child, ChildPid, Pid, S1),
            Flag = flag(Kind, Level, ChildPid, Pid, S2),
            Kind =:= terminated andalso runs(Pid, S2),
            emit(S2, Pid, {Kind, Child, ChildPid, Reason}),
            case Wanted of
                true ->
                    {ChildText, S3} = text({child, Child}, S2),
                    {ReasonText, S4} = text({reason, Class, Reason}, S3),
                    Record = {Time, Key, Kind, ChildText, child_pid(ChildPid), Flag, N, ReasonText},
                    append(Number, undefined, {ev, Record}, tell(Pid, S4));
                false -> S2
            end;
        {full, S1} ->
            atomics:add(Counters, ?LOST, 1),
            S1
    end;
read(Number, {down, Pid, Time, Class, Reason}, S) ->
    case ets:lookup(S#agent.shared#shared.sups, Pid) of
        [{_, Key, #sup{down = false} = Sup}] ->
            %% What is counted in the phase that is under way, and of this supervisor.
            Phase = atomics:get(S#agent.shared#shared.counters, ?PHASE),
            S1 = sum_up({Phase, Pid, '_', '_', '_'}, tell(Pid, S)),
            emit(S1, Pid, {down, Reason}),
            S2 = append(Number, Pid, {down, Time, Key, reason(Class, Reason)}, S1),
            ets:insert(S#agent.shared#shared.sups, {Pid, Key, Sup#sup{settled = true, down = true}}),
            S2;
        _ -> S
    end.

%% A crash of the agent between two of these lines neither loses nor doubles an event: see recover/1.
append(Number, Pid, Record, #agent{shared = #shared{counters = Counters, unacked = Unacked}} = S) ->
    Seq = atomics:get(Counters, ?SEQ) + 1,
    ets:insert(Unacked, {Seq, Number, Pid, Record}),
    atomics:put(Counters, ?SEQ, Seq),
    S.

flag(start_error, _, {restarting, _}, _, _) -> restarting;
flag(start_error, _, undefined, Pid, S) ->
    case ets:lookup(S#agent.shared#shared.sups, Pid) of
        [{_, _, #sup{runs = false}}] -> init;
        _ -> none
    end;
flag(started, debug, _, _, _) -> api;
flag(_, _, _, _, _) -> none.

%% What was counted in a phase that is over. Asked for each event, after it was taken: a tap may count on for a moment in a phase
%% that has just ended, but its supervisor reports the next event only after that.
counted(#agent{shared = #shared{counters = Counters, sums = Sums}} = S) ->
    case ets:first(Sums) of
        '$end_of_table' -> S;
        {Oldest, _, _, _, _} ->
            case atomics:get(Counters, ?PHASE) of
                Phase when Oldest < Phase -> counted(sum_up({Oldest, '_', '_', '_', '_'}, S));
                _ -> S
            end
    end.

%% Rows with such keys become numbered records, 100 rows each: deaths before the starts that follow from them.
sum_up(Key, #agent{shared = #shared{sums = Sums}, sums_since = Since} = S) ->
    case ets:select(Sums, [{{Key, '_', '_', '_'}, [], ['$_']}]) of
        [] -> S;
        Rows ->
            Now = erlang:system_time(microsecond),
            {Starts, Others} = lists:partition(fun({{_, _, Kind, _, _}, _, _, _}) -> Kind =:= started end, Rows),
            nothing_counted(sum_up(Others ++ Starts, Since, Now, S))
    end.

%% What is counted from now on was counted since now.
nothing_counted(#agent{shared = #shared{sums = Sums}} = S) ->
    case ets:info(Sums, size) of
        0 -> S#agent{sums_since = erlang:system_time(microsecond)};
        _ -> S
    end.

sum_up([], _, _, S) -> S;
sum_up(Rows, Since, Now, #agent{shared = #shared{counters = Counters} = Shared} = S) ->
    {Some, Rest} = lists:split(min(?BATCH, length(Rows)), Rows),
    {Records, S1} = lists:foldl(fun({{_, Pid, Kind, Class, Child}, Count, Name, _}, {Records, S0}) ->
        case know(Pid, #{name => Name}, S0) of
            {ok, Key, S2} -> {[{Key, Kind, element(3, Child), Class, Count, child(Child)} | Records], tell(Pid, S2)};
            {full, S2} -> atomics:add(Counters, ?LOST, Count), {Records, S2}
        end
    end, {[], S}, Some),
    Counts = {rows, [{Row, Count} || {Row, Count, _, _} <- Some]},
    %% A record stands for rows of supervisors beyond the limit as well: it says that they were taken.
    S2 = append(Counts, undefined, {agg, Since, Now, lists:reverse(Records)}, S1),
    subtract(atomics:get(Counters, ?SEQ), Counts, Shared),
    sum_up(Rest, Since, Now, S2).

%% Takes from the rows what the record of this number has of them; the tap may have counted on meanwhile. Each row tells which
%% record did so last: a crash of the agent between two of these lines neither loses nor doubles a count, see recover/1.
subtract(Seq, {rows, Counts}, #shared{unacked = Unacked, sums = Sums}) ->
    lists:foreach(fun({Row, Count}) ->
        case ets:lookup(Sums, Row) of
            [{_, _, _, Last}] when Last =/= Seq -> ets:update_counter(Sums, Row, [{2, -Count}, {4, Seq - Last}]);
            _ -> ok
        end
    end, Counts),
    _ = ets:update_element(Unacked, Seq, {2, none}),
    lists:foreach(fun({Row, _}) -> ets:match_delete(Sums, {Row, 0, '_', '_'}) end, Counts);
subtract(_, _, _) -> ok.

%% === to the exporter ===

connect(#agent{options = #{address := Address}} = S) ->
    Agent = self(),
    Helper = spawn_link(fun() ->
        Result = dial(Address),
        case Result of
            {ok, Socket} -> ok = gen_tcp:controlling_process(Socket, Agent);
            _ -> ok
        end,
        Agent ! {connected, self(), Result}
    end),
    S#agent{phase = connecting, helper = Helper}.

dial({local, _} = Address) -> gen_tcp:connect(Address, 0, socket_options(), ?CONNECT_MS);
dial({Host, Port}) ->
    Families = case Host of
        {_, _, _, _} -> [inet];
        _ when is_tuple(Host) -> [inet6];
        _ -> [inet, inet6]
    end,
    dial(Host, Port, Families).

dial(Host, Port, [Family | Others]) ->
    case gen_tcp:connect(Host, Port, [Family | socket_options()], ?CONNECT_MS) of
        {error, Reason} when Others =/= [], Reason =/= econnrefused -> dial(Host, Port, Others);
        Result -> Result
    end.

socket_options() -> [binary, {packet, 4}, {active, false}, {send_timeout, ?SEND_MS}, {send_timeout_close, true}, {nodelay, true}].

hello(#agent{shared = Shared, options = Options} = S) ->
    #{token := Token, labels := Labels} = Options,
    Offset = erlang:time_offset(),
    Start = erlang:convert_time_unit(erlang:system_info(start_time) + Offset, native, microsecond),
    Elixir = case application:get_key(elixir, vsn) of
        {ok, Version} -> list_to_binary(Version);
        undefined -> undefined
    end,
    {ok, Host} = inet:gethostname(),
    Node = case node() of
        %% Of these there may be many.
        nonode@nohost -> "nonode@" ++ Host;
        Name -> atom_to_list(Name)
    end,
    Hello = {
        ?VERSION, unicode:characters_to_binary(Node), Shared#shared.incarnation, list_to_binary(erlang:system_info(otp_release)), Elixir,
        unicode:characters_to_binary(Host), list_to_integer(os:getpid()), Start, erlang:system_time(microsecond), Labels, Token()
    },
    active(send({hello, 1, Hello}, S)).

active(#agent{socket = undefined} = S) -> S;
active(#agent{socket = Socket} = S) ->
    case inet:setopts(Socket, [{active, once}]) of
        ok -> S;
        {error, Reason} -> disconnected(Reason, S)
    end.

send(_, #agent{socket = undefined} = S) -> S;
send(Term, #agent{socket = Socket} = S) ->
    case gen_tcp:send(Socket, term_to_binary(Term, [{minor_version, 2}])) of
        ok -> S;
        {error, Reason} -> disconnected(Reason, S)
    end.

disconnected(Reason, #agent{socket = Socket, attempts = Attempts} = S) ->
    Socket =:= undefined orelse gen_tcp:close(Socket),
    erlang:send_after(backoff(Attempts), self(), connect),
    S#agent{phase = idle, socket = undefined, helper = undefined, attempts = Attempts + 1, told = #{}, last_error = Reason}.

received(Data, S) ->
    try binary_to_term(Data, [safe]) of
        {welcome, 1, Resume, Settings} when is_integer(Resume), is_list(Settings), S#agent.phase =:= hello ->
            active(welcome(Resume, Settings, S));
        {ack, Seq} when is_integer(Seq), S#agent.phase =:= live -> active(pump(acked(Seq, S)));
        {resync} when S#agent.phase =:= live -> active(snapshot(S));
        _ -> disconnected(protocol, S)
    catch
        error:_ -> disconnected(protocol, S)
    end.

welcome(Resume, Settings, #agent{shared = #shared{counters = Counters}} = S) ->
    Heartbeat = case field(heartbeat_ms, Settings) of
        Ms when is_integer(Ms), Ms >= 100, Ms =< 600000 -> Ms;
        _ -> ?HEARTBEAT_MS
    end,
    Batch = case field(max_frame, Settings) of
        Bytes when is_integer(Bytes) -> max(1, min(?BATCH, Bytes div ?MAX_EVENT));
        _ -> ?BATCH
    end,
    S1 = acked(Resume, S#agent{
        phase = live, attempts = 0, last_error = none, heartbeat_ms = Heartbeat, progress = field(progress, Settings) =/= 0,
        batch = Batch
    }),
    Resumed = atomics:get(Counters, ?ACKED),
    pump(send_stats(snapshot(S1#agent{sent = Resumed, resumed = Resumed}))).

%% The ring forgets what was acked, and with the last word of a supervisor the supervisor itself.
acked(Seq, #agent{shared = #shared{counters = Counters, unacked = Unacked, sups = Sups}} = S) ->
    From = atomics:get(Counters, ?ACKED),
    To = min(Seq, atomics:get(Counters, ?SEQ)),
    forget(From + 1, To, Unacked, Sups),
    To > From andalso atomics:put(Counters, ?ACKED, To),
    S.

forget(Seq, Last, _, _) when Seq > Last -> ok;
forget(Seq, Last, Unacked, Sups) ->
    case ets:take(Unacked, Seq) of
        [{_, _, Pid, _}] when is_pid(Pid) -> ets:delete(Sups, Pid);
        _ -> ok
    end,
    forget(Seq + 1, Last, Unacked, Sups).

snapshot(#agent{shared = #shared{counters = Counters, sups = Sups}} = S) ->
    %% Parents have lower keys than their children. One without a name of its own is told when it is known where it stands.
    All = lists:keysort(2, [Row || {_, _, Sup} = Row <- ets:tab2list(Sups), is_tellable(Sup)]),
    Id = erlang:unique_integer([positive]) band 16#ffffffff,
    Over = atomics:get(Counters, ?OVER),
    S1 = send({snapshot, 'begin', Id, length(All), Over}, S),
    S2 = lists:foldl(fun({Pid, Key, Sup}, S0) -> send_sup(Pid, Key, Sup, S0) end, S1, All),
    send({snapshot, done, Id, length(All), Over}, S2).

send_sup(Pid, Key, Sup, #agent{told = Told} = S) ->
    #sup{kind = Kind, name = Name, module = Module, behaviour = Behaviour, app = App, parent = Parent, id = Id, strategy = Strategy,
         intensity = Intensity, period = Period, auto_shutdown = AutoShutdown, counts = Counts, seen_us = SeenUs} = Sup,
    send({sup, Key, pid(Pid), Kind, Name, Module, Behaviour, App, Parent, Id, Strategy, Intensity, Period, AutoShutdown, Counts, SeenUs},
         S#agent{told = Told#{Key => true}}).

is_tellable(#sup{kind = Kind, id = Id, settled = Settled, down = Down}) ->
    Kind =/= unnamed orelse Id =/= undefined orelse Settled orelse Down.

%% Says what is known of a supervisor before it is first mentioned on a connection. One that was mentioned is in each snapshot from
%% then on: the events that speak of it may be sent again.
tell(Pid, #agent{phase = Phase, told = Told, shared = #shared{sups = Sups}} = S) ->
    case ets:lookup(Sups, Pid) of
        [{_, Key, Sup}] ->
            Sup#sup.settled orelse ets:insert(Sups, {Pid, Key, Sup#sup{settled = true}}),
            case Phase =:= live andalso not is_map_key(Key, Told) of
                true -> send_sup(Pid, Key, Sup, S);
                false -> S
            end;
        [] -> S
    end.

%% Sends what was not sent on this connection: events in frames of 100, the others each in its own.
ship(#agent{phase = live, sent = Sent, shared = #shared{counters = Counters}} = S) ->
    case atomics:get(Counters, ?SEQ) of
        Sent -> S;
        Last ->
            {Frame, To} = batch(Sent + 1, min(Last, Sent + S#agent.batch), S#agent.shared#shared.unacked, []),
            case send(Frame, S) of
                #agent{phase = live} = S1 ->
                    To > atomics:get(Counters, ?SENT) andalso atomics:put(Counters, ?SENT, To),
                    ship(S1#agent{sent = To});
                S1 -> S1
            end
    end;
ship(S) -> S.

%% The next frame, and the last number in it.
batch(Seq, Last, Unacked, Events) when Seq =< Last ->
    case {ets:lookup(Unacked, Seq), Events} of
        {[{_, _, _, {ev, Record}}], _} -> batch(Seq + 1, Last, Unacked, [numbered(Seq, Record) | Events]);
        {[{_, _, _, {down, Time, Key, Reason}}], []} -> {{down, Seq, Time, Key, Reason}, Seq};
        {[{_, _, _, {agg, Since, Now, Rows}}], []} -> {{agg, Since, Now, Rows, Seq}, Seq};
        _ -> {{ev, lists:reverse(Events)}, Seq - 1}
    end;
batch(Seq, _, _, Events) -> {{ev, lists:reverse(Events)}, Seq - 1}.

numbered(Seq, {Time, Key, Kind, Child, Pid, Flag, N, Reason}) -> {Seq, Time, Key, Kind, Child, Pid, Flag, N, Reason}.

send_stats(#agent{phase = live} = S) -> send({stats, erlang:system_time(microsecond), stats(S)}, S);
send_stats(S) -> S.

stats(#agent{shared = #shared{counters = Counters, waiting = Waiting, sups = Sups}}) ->
    [Seen, Aggregated, Lost, Sent, Reinstalls, Seq, Skipped] =
        [atomics:get(Counters, I) || I <- [?SEEN, ?AGGREGATED, ?LOST, ?SENT, ?REINSTALLS, ?SEQ, ?SKIPPED]],
    #{filters := Filters} = logger:get_primary_config(),
    Tap = case lists:any(fun({Id, _}) -> is_ours(Id) end, Filters) of
        true -> 1;
        false -> 0
    end,
    [{seen, Seen}, {sent, Sent}, {aggregated, Aggregated}, {lost, Lost}, {queue, rows(Waiting) + Seq - Sent}, {supervisors, rows(Sups)},
     {reinstalls, Reinstalls}, {tap, Tap}, {state_skipped, Skipped}].

rows(Table) ->
    case ets:info(Table, size) of
        undefined -> 0;
        Size -> Size
    end.

say_bye(#agent{socket = Socket} = S, Reason) ->
    send({bye, Reason}, send_stats(S)),
    Socket =:= undefined orelse gen_tcp:close(Socket).

%% === supervisors ===

%% The key of a supervisor. Who is not known yet is looked at from outside, and monitored.
know(Pid, Hints, #agent{shared = #shared{sups = Sups, counters = Counters}} = S) ->
    case ets:lookup(Sups, Pid) of
        [{_, Key, Sup}] ->
            Better = named(Hints, Sup),
            Better =:= Sup orelse ets:insert(Sups, {Pid, Key, Better}),
            {ok, Key, S};
        [] ->
            case rows(Sups) < ?MAX_SUPERVISORS of
                true ->
                    {Parent, S1} = parent(Pid, maps:get(depth, Hints, 32), S),
                    Id = case Hints of
                        #{id := Known} -> Known;
                        _ -> id_in_parent(Pid, S)
                    end,
                    Sup = look(Pid, named(Hints, #sup{parent = Parent, id = Id, seen_us = erlang:system_time(microsecond)})),
                    Key = atomics:add_get(Counters, ?KEY, 1),
                    ets:insert(Sups, {Pid, Key, Sup}),
                    monitor(process, Pid),
                    ask_soon(Pid, S1),
                    {ok, Key, S1};
                false ->
                    atomics:add(Counters, ?OVER, 1),
                    {full, S}
            end
    end.

%% What a report says of its supervisor.
named(#{name := Name} = Hints, #sup{kind = unnamed} = Sup) -> behaved(Hints, name(Name, Sup));
named(Hints, Sup) -> behaved(Hints, Sup).

behaved(#{dynamic := true}, #sup{behaviour = Behaviour} = Sup) when Behaviour =/= bridge -> Sup#sup{behaviour = dynamic};
behaved(#{behaviour := Behaviour}, #sup{behaviour = other} = Sup) -> Sup#sup{behaviour = Behaviour};
behaved(_, Sup) -> Sup.

name({local, Name}, Sup) -> Sup#sup{kind = local, name = print(Name)};
name({global, Name}, Sup) -> stable(global, Name, Sup);
name({via, _, Name}, Sup) -> stable(via, Name, Sup);
name({Pid, Module}, Sup) when is_pid(Pid), is_atom(Module) -> Sup#sup{module = print(Module)};
name(_, Sup) -> Sup.

%% A name that differs from start to start is none.
stable(Kind, Name, Sup) ->
    case is_stable(Name) of
        true -> Sup#sup{kind = Kind, name = print(Name)};
        false -> Sup
    end.

is_stable(Term) when is_pid(Term); is_reference(Term); is_port(Term); is_function(Term) -> false;
is_stable([Head | Tail]) -> is_stable(Head) andalso is_stable(Tail);
is_stable(Tuple) when is_tuple(Tuple) -> is_stable(tuple_to_list(Tuple));
is_stable(Map) when is_map(Map) -> is_stable(maps:to_list(Map));
is_stable(_) -> true.

%% What can be seen of a process without asking it.
look(Pid, Sup0) ->
    Sup1 = case application:get_application(Pid) of
        {ok, App} -> Sup0#sup{app = print(App)};
        undefined -> Sup0
    end,
    Sup2 = case process_info(Pid, registered_name) of
        {registered_name, Name} when Sup1#sup.kind =:= unnamed -> name({local, Name}, Sup1);
        _ -> Sup1
    end,
    case is_supervisor(Pid) of
        {true, Behaviour, Module} -> behaved(#{behaviour => Behaviour}, Sup2#sup{module = print(Module)});
        false -> Sup2
    end.

is_supervisor(Pid) ->
    try proc_lib:translate_initial_call(Pid) of
        {supervisor, Module, _} -> {true, supervisor, Module};
        {supervisor_bridge, Module, _} -> {true, bridge, Module};
        _ -> false
    catch
        _:_ -> false
    end.

%% The nearest ancestor, if it is a supervisor.
parent(_, 0, S) -> {undefined, S};
parent(Pid, Depth, S) ->
    case ancestor(Pid) of
        undefined -> {undefined, S};
        Ancestor ->
            case ets:member(S#agent.shared#shared.sups, Ancestor) orelse is_supervisor(Ancestor) =/= false of
                true ->
                    case know(Ancestor, #{depth => Depth - 1}, S) of
                        {ok, Key, S1} -> {Key, tell(Ancestor, S1)};
                        {full, S1} -> {undefined, S1}
                    end;
                false -> {undefined, S}
            end
    end.

ancestor(Pid) ->
    case process_info(Pid, dictionary) of
        {dictionary, Dictionary} ->
            case field('$ancestors', Dictionary) of
                [Ancestor | _] when is_pid(Ancestor), node(Ancestor) =:= node() -> Ancestor;
                [Name | _] when is_atom(Name) -> whereis(Name);
                _ -> undefined
            end;
        undefined -> undefined
    end.

%% Trees start from the leaves: the parent's report of a new supervisor often waits behind the supervisor's own.
id_in_parent(Pid, #agent{shared = #shared{waiting = Waiting}}) ->
    Started = {'_', {event, '_', '_', '_', started, '_', '_', {'$1', '_', '_', supervisor, '_', '_'}, Pid, '_', '_', '_'}},
    case ets:match(Waiting, Started, 1) of
        {[[Id]], _} -> id(Id);
        '$end_of_table' -> undefined
    end.

%% The start of a supervisor says where it stands.
child_started(started, {Id, _, _, supervisor, _, _}, Child, Parent, #agent{shared = #shared{sups = Sups}} = S)
  when is_pid(Child), node(Child) =:= node() ->
    case know(Child, #{id => id(Id)}, S) of
        {ok, Key, S1} ->
            [{_, ParentKey, _}] = ets:lookup(Sups, Parent),
            [{_, _, Sup}] = ets:lookup(Sups, Child),
            update(Child, Key, Sup, Sup#sup{parent = ParentKey, id = id(Id), runs = true}, S1);
        {full, S1} -> S1
    end;
child_started(_, _, _, _, S) -> S.

runs(Pid, #agent{shared = #shared{sups = Sups}}) ->
    case ets:lookup(Sups, Pid) of
        [{_, Key, #sup{runs = false} = Sup}] -> ets:insert(Sups, {Pid, Key, Sup#sup{runs = true}});
        _ -> true
    end.

%% Keeps what is new, and says it again if something else was said before.
update(Pid, Key, Old, New, #agent{told = Told, shared = #shared{sups = Sups}} = S) ->
    ets:insert(Sups, {Pid, Key, New}),
    case New#sup{runs = Old#sup.runs, asked = Old#sup.asked, settled = Old#sup.settled} =/= Old andalso is_map_key(Key, Told) of
        true -> send_sup(Pid, Key, New, S);
        false -> S
    end.

%% All processes are looked at by a helper, in slices, so that a node with a million of them does not notice.
scan(#agent{scanner = undefined} = S) ->
    Agent = self(),
    S#agent{scanner = spawn_link(fun() -> scan_slices(processes(), Agent) end)};
scan(S) -> S.

scan_slices([], _) -> ok;
scan_slices(Pids, Agent) ->
    {Slice, Rest} = lists:split(min(?SCAN_SLICE, length(Pids)), Pids),
    case [{Pid, Behaviour} || Pid <- Slice, {true, Behaviour, _} <- [is_supervisor(Pid)]] of
        [] -> ok;
        Found -> Agent ! {found, Found}
    end,
    timer:sleep(1),
    scan_slices(Rest, Agent).

found({Pid, Behaviour}, #agent{shared = #shared{sups = Sups}} = S) ->
    case ets:lookup(Sups, Pid) of
        [{_, _, #sup{asked = true}}] -> S;
        [_] ->
            ask_soon(Pid, S),
            S;
        [] ->
            case know(Pid, #{behaviour => Behaviour}, S) of
                {ok, Key, S1} ->
                    [{_, Key, Sup}] = ets:lookup(Sups, Pid),
                    case is_tellable(Sup) of
                        true -> tell(Pid, S1);
                        false -> S1
                    end;
                {full, S1} -> S1
            end
    end.

%% Where too many wait to be asked, the next scan finds those that are still there.
ask_soon(Pid, #agent{asker = Asker}) ->
    case process_info(Asker, message_queue_len) of
        {_, Length} when Length < ?MAX_SUPERVISORS -> Asker ! {ask, Pid}, ok;
        _ -> ok
    end.

%% Asks supervisors how they are configured, one after the other.
asker(AtOnce, Shared) ->
    receive
        {ask, Pid} ->
            Answer = ask(Pid, Shared),
            whereis(?AGENT) ! {answer, Pid, Answer},
            case Answer of
                %% Nothing was asked that would have cost it time, or us memory; it may have ended long ago.
                unknown -> asker(AtOnce, Shared);
                _ ->
                    AtOnce > 0 orelse timer:sleep(?ASK_PAUSE_MS),
                    erlang:garbage_collect(),
                    asker(max(0, AtOnce - 1), Shared)
            end
    after ?TICK_MS -> asker(?ASK_AT_ONCE, Shared)
    end.

ask(Pid, Shared) ->
    %% Bridges and foreign supervisors do not answer as the others do.
    case is_supervisor(Pid) of
        {true, supervisor, _} -> ask_supervisor(Pid, Shared);
        _ -> unknown
    end.

ask_supervisor(Pid, #shared{counters = Counters}) ->
    case process_info(Pid, message_queue_len) of
        {message_queue_len, Length} when Length < ?ASK_MAX_QUEUE ->
            try described(outline_of(Pid), Pid)
            catch
                _:_ ->
                    atomics:add(Counters, ?SKIPPED, 1),
                    unknown
            end;
        undefined -> unknown;
        _ ->
            atomics:add(Counters, ?SKIPPED, 1),
            unknown
    end.

%% The state of a supervisor holds the start arguments of all its children, and a copy of it may take a second in which the supervisor
%% restarts nothing. So the supervisor itself picks what is wanted. A function of sys:replace_state/3 that throws leaves the state as it is
%% (sys, system_replace_state/2), and what it throws comes back in the error.
outline_of(Pid) ->
    try sys:replace_state(Pid, fun ?MODULE:outline/1, ?ASK_MS) of
        _ -> unknown
    catch
        error:{callback_failed, _, {throw, {?MODULE, Outline}}} -> Outline
    end.

%% Runs in a supervisor, takes no longer for a thousand children than a restart does, and never returns.
outline(State) ->
    throw({?MODULE, try outlined(State) catch _:_ -> unknown end}).

%% The places in the tuple of OTP and the keys of Elixir's map are the same in all versions.
outlined(State) when tuple_size(State) >= 8, element(1, State) =:= state ->
    {Name, Strategy, Children} = {element(2, State), element(3, State), element(4, State)},
    AutoShutdown = [Word || Word <- lists:nthtail(8, tuple_to_list(State)), lists:member(Word, [never, any_significant, all_significant])],
    {supervisor, limit(Name), word(Strategy), number(element(6, State)), number(element(7, State)), AutoShutdown, nested(Children, Strategy), size_of(Children)};
outlined(#{'__struct__' := 'Elixir.DynamicSupervisor', name := Name, strategy := Strategy, max_restarts := Intensity, max_seconds := Period,
           children := Children}) ->
    {dynamic, limit(Name), word(Strategy), number(Intensity), number(Period), [never], [], map_size(Children)};
outlined(_) -> unknown.

size_of({Ids, _}) when is_list(Ids) -> length(Ids);
size_of(_) -> ?ASK_MAX_CHILDREN.

%% Ids of the supervisors among static children, by pid. The type is the last but one word of a child in all versions.
nested({Ids, Children}, Strategy) when Strategy =/= simple_one_for_one, map_size(Children) =< ?ASK_MAX_CHILDREN, is_list(Ids) ->
    maps:fold(fun
        (Id, Child, Found) when is_pid(element(2, Child)), element(tuple_size(Child) - 1, Child) =:= supervisor, length(Found) < ?MAX_NESTED ->
            [{element(2, Child), id(limit(Id))} | Found];
        (_, _, Found) -> Found
    end, [], Children);
nested(_, _) -> [].

described({Behaviour, Name, Strategy, Intensity, Period, AutoShutdown, Nested, Size}, Pid) ->
    %% This counts in no time the children of simple_one_for_one, and one by one all others.
    Counts = case Strategy =:= simple_one_for_one orelse Size < ?ASK_MAX_CHILDREN of
        true -> counts(gen_server:call(Pid, count_children, ?ASK_MS));
        false -> unknown
    end,
    #{
        behaviour => Behaviour, name => Name, strategy => Strategy, intensity => Intensity, period => Period,
        auto_shutdown => case AutoShutdown of [Word | _] -> Word; [] -> unknown end, counts => Counts, nested => Nested
    };
%% A state of a shape that is not known. Only a dynamic supervisor has more children than specifications.
described(unknown, Pid) ->
    case counts(gen_server:call(Pid, count_children, ?ASK_MS)) of
        {1, Active, _, _} = Counts when Active > 1 ->
            #{behaviour => supervisor, name => undefined, strategy => simple_one_for_one, intensity => -1, period => -1,
              auto_shutdown => unknown, counts => Counts, nested => []};
        _ -> unknown
    end.

counts(List) when is_list(List) -> list_to_tuple([field(Key, List, 0) || Key <- [specs, active, supervisors, workers]]);
counts(_) -> unknown.

answered(Pid, Answer, #agent{shared = #shared{sups = Sups}} = S) ->
    case {ets:lookup(Sups, Pid), Answer} of
        {[{_, Key, Sup}], #{name := Name, behaviour := Behaviour, strategy := Strategy, intensity := Intensity, period := Period,
                            auto_shutdown := AutoShutdown, counts := Counts, nested := Nested}} ->
            Named = named(#{name => Name}, Sup),
            New = Named#sup{
                behaviour = Behaviour, strategy = Strategy, intensity = Intensity, period = Period, auto_shutdown = AutoShutdown,
                counts = Counts, runs = true, asked = true, settled = true
            },
            S1 = tell(Pid, update(Pid, Key, Sup, New, S)),
            Sup#sup.asked orelse emit(S1, Pid, init),
            lists:foldl(fun({Child, Id}, S0) -> placed(Child, Key, Id, S0) end, S1, Nested);
        {[{_, Key, Sup}], unknown} ->
            ets:insert(Sups, {Pid, Key, Sup#sup{settled = true}}),
            tell(Pid, S);
        {[], _} -> S
    end.

placed(Pid, Parent, Id, #agent{shared = #shared{sups = Sups}} = S) ->
    case ets:lookup(Sups, Pid) of
        [{_, Key, #sup{id = undefined} = Sup}] -> update(Pid, Key, Sup, Sup#sup{parent = Parent, id = Id}, S);
        _ -> S
    end.

number(N) when is_integer(N), N >= 0, N < 1 bsl 60 -> N;
number(_) -> -1.

watch_logger(#agent{logger_ref = undefined} = S) ->
    case whereis('Elixir.Logger.Supervisor') of
        undefined -> S;
        Pid -> S#agent{logger_ref = monitor(process, Pid)}
    end;
watch_logger(S) -> S.

%% === text ===

%% What was written lately is not written again: children die many times, and of the same.
text(Key, #agent{texts = Texts} = S) ->
    case Texts of
        #{Key := Text} -> {Text, S};
        _ ->
            Text = case Key of
                {child, Child} -> child(Child);
                {reason, Class, Reason} -> reason(Class, Reason)
            end,
            Kept = case map_size(Texts) < ?MAX_TEXTS of
                true -> Texts;
                false -> #{}
            end,
            {Text, S#agent{texts = Kept#{Key => Text}}}
    end.

child({Id, Mfa, RestartType, ChildType, ShutdownMs, Significant}) ->
    {id(Id), mfa_text(Mfa), RestartType, ChildType, ShutdownMs, word(Significant)}.

id(Id) ->
    case is_stable(Id) of
        true -> print(Id);
        false -> <<"undefined">>
    end.

mfa_text(undefined) -> <<>>;
mfa_text({M, F, A}) ->
    Dot = case atom_to_list(M) of
        "Elixir." ++ _ -> ".";
        _ -> ":"
    end,
    Arity = case A of
        undefined -> "";
        _ -> [$/, integer_to_list(A)]
    end,
    cut(unicode:characters_to_binary([print(M), Dot, function(F, Arity)]), ?MAX_NAME).

%% Of a function inside a function the outer one: its name is '-outer/1-fun-0-'.
function(F, Arity) ->
    case re:run(atom_to_binary(F, utf8), "^-(.+/[0-9]+)-.*-$", [unicode, {capture, all_but_first, binary}]) of
        {match, [Outer]} -> Outer;
        nomatch -> [io_lib:format("~0tp", [F]), Arity]
    end.

child_pid(Pid) when is_pid(Pid) -> pid(Pid);
child_pid({restarting, Pid}) when is_pid(Pid) -> pid(Pid);
child_pid(_) -> undefined.

pid(Pid) -> list_to_binary(pid_to_list(Pid)).

reason(normal, _) -> {normal, <<>>, <<>>};
reason(Class, Reason) -> {Class, tag(Class, Reason), detail(Class, Reason)}.

tag(Class, {Reason, {_, _, _, _, _}}) when Class =:= error; Class =:= throw -> tag(Reason, Class, Reason);
tag(Class, Reason) -> tag(Reason, Class, Reason).

tag(_, _, #{'__struct__' := Struct}) when is_atom(Struct) -> print(Struct);
tag(_, _, Atom) when is_atom(Atom) -> print(Atom);
tag(_, _, Tuple) when is_tuple(Tuple), tuple_size(Tuple) > 0, is_atom(element(1, Tuple)) -> print(element(1, Tuple));
tag(_, Class, _) -> atom_to_binary(Class, utf8).

detail(_, Word) when Word =:= normal; Word =:= shutdown; Word =:= killed; Word =:= reached_max_restart_intensity -> <<>>;
detail(Class, {Reason, {M, F, A, File, Line}}) when Class =:= error; Class =:= throw ->
    Where = case File of
        undefined -> [" in ", mfa_text({M, F, A})];
        _ -> [" in ", mfa_text({M, F, A}), " (", to_text(File), $:, integer_to_list(Line), $)]
    end,
    Place = cut(unicode:characters_to_binary(Where), ?MAX_DETAIL div 2),
    Text = cut(said(Reason), ?MAX_DETAIL - byte_size(Place)),
    <<Text/binary, Place/binary>>;
detail(_, Reason) -> cut(said(Reason), ?MAX_DETAIL).

said(#{'__struct__' := Struct, '__exception__' := true, message := Message}) when is_binary(Message) ->
    <<(print(Struct))/binary, ": ", (utf8(Message))/binary>>;
said(Term) -> shown(Term, ?MAX_DETAIL).

%% A name: bare where it can be.
print(Atom) when is_atom(Atom) ->
    case atom_to_binary(Atom, utf8) of
        <<"Elixir.", Module/binary>> -> cut(Module, ?MAX_NAME);
        Name -> cut(Name, ?MAX_NAME)
    end;
print(Integer) when is_integer(Integer) -> integer_to_binary(Integer);
print(Binary) when is_binary(Binary) -> cut(to_text(Binary), ?MAX_NAME);
print([_ | _] = List) ->
    case io_lib:printable_unicode_list(List) of
        true -> cut(unicode:characters_to_binary(List), ?MAX_NAME);
        false -> cut(shown(List, ?MAX_NAME), ?MAX_NAME)
    end;
print(Term) -> cut(shown(Term, ?MAX_NAME), ?MAX_NAME).

to_text(Binary) when is_binary(Binary) -> utf8(Binary);
to_text(List) ->
    try utf8(unicode:characters_to_binary(List)) catch error:_ -> <<>> end.

%% A term in Erlang's notation, on one line; names of Elixir modules bare.
shown(Term, Max) ->
    Text = unicode:characters_to_binary(io_lib:format("~0tp", [Term], [{chars_limit, Max}])),
    re:replace(Text, "'Elixir\\.([A-Za-z0-9_.]+)'", "\\1", [global, unicode, {return, binary}]).

%% Bytes that are no text are written as a term.
utf8(Binary) when is_binary(Binary) ->
    case unicode:characters_to_binary(Binary) of
        Text when is_binary(Text) -> Text;
        {incomplete, Text, _} -> Text;
        _ -> shown(Binary, ?MAX_DETAIL)
    end;
utf8(_) -> <<>>.

%% At most so many bytes, whole characters.
cut(Text, Max) when byte_size(Text) =< Max -> Text;
cut(Text, Max) ->
    case unicode:characters_to_binary(binary:part(Text, 0, Max)) of
        {incomplete, Whole, _} -> Whole;
        Whole -> Whole
    end.

%% === telemetry on the node ===

%% The events of restart_exporter, for handlers on the node itself. A process of its own runs them: it may be slow, the agent not.
%%
%%     [supervisor, init]                   strategy, max_restarts, max_seconds (undefined where not known); before all others of it
%%     [supervisor, child, start]           child_id, child_pid
%%     [supervisor, child, start_error]     child_id, child_pid (of the run before), reason, shutdown (false)
%%     [supervisor, child, terminate]       child_id, child_pid, reason, shutdown (false: what the supervisor orders is not reported)
%%     [supervisor, child, restart]         child_id, child_pid (of the run that died), new_pid (undefined for dynamic children), reason of
%%                                          the death (undefined for siblings), shutdown (did the supervisor order the end?),
%%                                          cause (failure | sibling)
%%     [supervisor, terminate]              reason
%%
%% Each with the measurement system_time, in native units, and with supervisor_pid and name in the metadata. The name of a supervisor
%% without one is its pid as Elixir writes it.
start_emitter(#{telemetry := true}) -> spawn_link(fun() -> emitter(#{}) end);
start_emitter(_) -> undefined.

emit(#agent{emitter = undefined}, _, _) -> ok;
emit(#agent{emitter = Emitter, shared = #shared{sups = Sups}}, Pid, What) ->
    case {process_info(Emitter, message_queue_len), ets:lookup(Sups, Pid)} of
        {{_, Length}, [{_, _, Sup}]} when Length < ?MAX_EMITTED -> Emitter ! {Pid, Sup, What}, ok;
        _ -> ok
    end.

%% All maps a supervisor to its name, whether it is dynamic, and the runs of its children, by id. A run is a pid; after an end that a restart follows it is
%% {pending, Pid, Reason}, or of a dynamic child, whose restart is not reported, {dynamic, Pid, Reason, Since}.
emitter(All) ->
    receive
        {Pid, Sup, What} -> emitter(heard(What, Pid, introduced(Pid, Sup, All)));
        tick ->
            Before = erlang:monotonic_time(millisecond) - ?INFER_MS,
            emitter(maps:map(fun(Pid, {Name, Dynamic, Runs}) -> {Name, Dynamic, inferred(Pid, Name, Runs, Before)} end, All))
    end.

heard(init, _, All) -> All;
heard({down, Reason}, Pid, All) ->
    {{Name, _, _}, Others} = maps:take(Pid, All),
    execute([supervisor, terminate], Pid, Name, #{reason => Reason}),
    Others;
heard(What, Pid, All) ->
    #{Pid := {Name, Dynamic, Runs}} = All,
    Changed = emitted(What, Pid, Name, Dynamic, Runs),
    All#{Pid := {Name, Dynamic, case map_size(Changed) < ?MAX_EMITTED of true -> Changed; false -> #{} end}}.

%% The init of a supervisor comes before all else that is heard of it. It is asked here if the agent has no answer yet.
introduced(Pid, _, All) when is_map_key(Pid, All) -> All;
introduced(Pid, Sup, All) ->
    Name = told_name(Pid, Sup),
    Said = {Sup#sup.behaviour, Sup#sup.strategy, Sup#sup.intensity, Sup#sup.period},
    {Behaviour, Strategy, Intensity, Period} = case Sup of
        #sup{asked = false, behaviour = Kind} when Kind =/= bridge ->
            try outline_of(Pid) of
                {Known, _, Asked, Most, Seconds, _, _, _} -> {Known, Asked, Most, Seconds};
                unknown -> Said
            catch
                _:_ -> Said
            end;
        _ -> Said
    end,
    Configuration = #{
        strategy => case Strategy of unknown -> undefined; _ -> Strategy end, max_restarts => known(Intensity), max_seconds => known(Period)
    },
    execute([supervisor, init], Pid, Name, Configuration),
    All#{Pid => {Name, Behaviour =:= dynamic orelse Strategy =:= simple_one_for_one, #{}}}.

known(-1) -> undefined;
known(Number) -> Number.

told_name(Pid, #sup{kind = Kind, name = Text}) ->
    case process_info(Pid, registered_name) of
        {registered_name, Name} -> Name;
        %% It has ended, or its name is not one of this node's.
        _ when Kind =:= unnamed -> list_to_binary([$#, "PID" | pid_to_list(Pid)]);
        _ when Kind =:= local -> try binary_to_existing_atom(Text, utf8) catch error:_ -> Text end;
        _ -> Text
    end.

emitted({started, {Id, _, _, _, _, _}, Child, _}, Pid, Name, _, Runs) ->
    case Runs of
        #{Id := {pending, Previous, Reason}} -> restarted(Pid, Name, Id, Child, Previous, Reason, failure);
        #{Id := Previous} when is_pid(Previous) -> restarted(Pid, Name, Id, Child, Previous, undefined, sibling);
        _ -> execute([supervisor, child, start], Pid, Name, #{child_id => Id, child_pid => Child})
    end,
    Runs#{Id => Child};
emitted({terminated, {Id, _, RestartType, _, _, _}, Child, Reason}, Pid, Name, Dynamic, Runs) ->
    Now = erlang:monotonic_time(millisecond),
    %% A dynamic supervisor that reports another end has restarted the child before.
    Known = inferred(Pid, Name, Runs, Now + 1),
    execute([supervisor, child, terminate], Pid, Name, #{child_id => Id, child_pid => Child, reason => Reason, shutdown => false}),
    case RestartType of
        temporary -> maps:remove(Id, Known);
        _ when Dynamic -> Known#{Id => {dynamic, Child, Reason, Now}};
        _ -> Known#{Id => {pending, Child, Reason}}
    end;
emitted({start_error, {Id, _, _, _, _, _}, Child, Reason}, Pid, Name, _, Runs) ->
    Before = case Child of {restarting, Run} -> Run; _ -> Child end,
    execute([supervisor, child, start_error], Pid, Name, #{child_id => Id, child_pid => Before, reason => Reason, shutdown => false}),
    case Runs of
        #{Id := {dynamic, Previous, Why, _}} -> Runs#{Id => {dynamic, Previous, Why, erlang:monotonic_time(millisecond)}};
        _ -> Runs
    end;
emitted({max_intensity, {Id, _, _, _, _, _}, _, _}, _, _, _, Runs) -> maps:remove(Id, Runs);
emitted({shutdown_error, _, _, _}, _, _, _, Runs) -> Runs.

inferred(Pid, Name, Runs, Before) ->
    maps:filter(fun
        (Id, {dynamic, Previous, Reason, Since}) when Since < Before ->
            restarted(Pid, Name, Id, undefined, Previous, Reason, failure),
            false;
        (_, _) -> true
    end, Runs).

restarted(Pid, Name, Id, Child, Previous, Reason, Cause) ->
    execute([supervisor, child, restart], Pid, Name, #{
        child_id => Id, child_pid => Previous, new_pid => Child, reason => Reason, shutdown => Cause =:= sibling, cause => Cause
    }).

%% Not known when this is compiled.
execute(Event, Pid, Name, Metadata) ->
    Telemetry = telemetry,
    erlang:function_exported(Telemetry, execute, 3) andalso
        Telemetry:execute(Event, #{system_time => erlang:system_time()}, Metadata#{supervisor_pid => Pid, name => Name}).
