#!/usr/bin/env escript
%%! +sbwt none
%% What the agent costs the node that it watches, with and without it in the same run, and what it holds after a million events.
%%
%%     restart_exporter run & escript benches/node.escript [ADDRESS]
%%
%% The node's other handlers are taken away, so that what is measured is the agent and not the printing of logs.
-mode(compile).
-define(BURST, 5000).

main([]) -> main(["127.0.0.1:8470"]);
main([Address]) ->
    Source = filename:join([filename:dirname(escript:script_name()), "..", "src", "beam", "restart_agent.erl"]),
    {ok, Module, Code} = compile:file(Source, [binary]),
    {module, _} = code:load_binary(Module, Source, Code),
    ok = logger:remove_handler(default),
    Measure = fun() -> [{terminated, report(child_terminated, error)}, {progress, report(progress, info)},
                        {restarts, lists:max([restarts() || _ <- lists:seq(1, 5)])}] end,
    _ = Measure(),
    Without = Measure(),
    {ok, _} = restart_agent:start(#{address => Address}),
    await(fun() -> maps:get(connection, restart_agent:status()) =:= live end),
    With = Measure(),
    row("", "without", "with the agent"),
    row("a report of a child's end, us in the supervisor", us(terminated, Without), us(terminated, With)),
    row("a report of a child's start, us in the supervisor", us(progress, Without), us(progress, With)),
    row("restarts a second of one supervisor", per_second(Without), per_second(With)),
    Aggregated = overflow(),
    row("a report that is only counted, us in the supervisor", "-", io_lib:format("~.2f", [Aggregated])),
    Before = memory(),
    {Seconds, Peak} = million(),
    row("events a second, supervisor to exporter and acked", "-", integer_to_list(round(1000000 / Seconds))),
    row("KiB of the agent before, at most during, and after 1,000,000 events", "-",
        io_lib:format("~b, ~b, ~b", [B div 1024 || B <- [Before, Peak, memory()]])),
    #{lost := 0} = Status = restart_agent:status(),
    io:format("~nseen ~b, sent ~b, aggregated ~b, lost ~b~n", [maps:get(Key, Status) || Key <- [seen, sent, aggregated, lost]]),
    ok = restart_agent:stop().

row(What, Without, With) -> io:format("~-70ts ~12ts ~24ts~n", [What, Without, With]).
us(Key, Figures) -> io_lib:format("~.2f", [proplists:get_value(Key, Figures)]).
per_second(Figures) -> integer_to_list(round(proplists:get_value(restarts, Figures))).

%% Microseconds of a report, the best of bursts that the agent has the time to take in: what else the machine does only adds to them.
report(Label, Level) ->
    lists:min([begin settle(), {Us, ok} = timer:tc(fun() -> reports(?BURST, Label, Level) end), Us / ?BURST end || _ <- lists:seq(1, 15)]).

%% As supervisor.erl does it.
reports(0, _, _) -> ok;
reports(N, Label, Level) ->
    case logger:allow(Level, supervisor) of
        true ->
            Child = [{pid, self()}, {id, worker}, {mfargs, {worker, start_link, [some, arguments]}}, {restart_type, permanent},
                     {significant, false}, {shutdown, 5000}, {child_type, worker}],
            Report = case Label of
                progress -> [{supervisor, {local, bench}}, {started, Child}];
                _ -> [{supervisor, {local, bench}}, {errorContext, Label}, {reason, {badmatch, {error, enoent}}}, {offender, Child}]
            end,
            logger:macro_log(#{mfa => {supervisor, do_restart, 3}, line => 1, file => "supervisor.erl"}, Level,
                             #{label => {supervisor, Label}, report => Report}, #{domain => [otp, sasl]});
        false -> ok
    end,
    reports(N - 1, Label, Level).

restarts() ->
    Self = self(),
    Worker = fun() -> {ok, spawn_link(fun() -> Self ! {up, self()}, receive stop -> ok end end)} end,
    persistent_term:put(bench_worker, Worker),
    {ok, Sup} = start_supervisor(),
    Count = ?BURST div 2,
    settle(),
    {Us, ok} = timer:tc(fun() -> kill(Count) end),
    receive {up, _} -> ok end,
    unlink(Sup),
    exit(Sup, kill),
    settle(),
    Count / Us * 1000000.

start_supervisor() ->
    Spec = #{id => worker, start => {erlang, apply, [persistent_term:get(bench_worker), []]}},
    supervisor:start_link(supervisor_flags(), {#{intensity => 1000000, period => 1}, [Spec]}).

%% A callback module without a file: the script itself is none that a supervisor could call.
supervisor_flags() ->
    case erlang:module_loaded(bench_callback) of
        true -> bench_callback;
        false ->
            Forms = [{attribute, 1, module, bench_callback}, {attribute, 1, export, [{init, 1}]},
                     {function, 1, init, 1, [{clause, 1, [{var, 1, 'Args'}], [], [{tuple, 1, [{atom, 1, ok}, {var, 1, 'Args'}]}]}]}],
            {ok, Module, Code} = compile:forms(Forms),
            {module, Module} = code:load_binary(Module, "bench_callback", Code),
            Module
    end.

kill(0) -> ok;
kill(Count) ->
    receive {up, Pid} -> exit(Pid, kill) end,
    kill(Count - 1).

%% More in one go than wait for the agent: it is held, as by an exporter that does not answer.
overflow() ->
    settle(),
    ok = sys:suspend(restart_agent),
    reports(20000, child_terminated, error),
    Us = lists:min([element(1, timer:tc(fun() -> reports(?BURST, child_terminated, error) end)) || _ <- lists:seq(1, 5)]),
    ok = sys:resume(restart_agent),
    settle(),
    Us / ?BURST.

million() ->
    Start = erlang:monotonic_time(millisecond),
    Peak = lists:foldl(fun(_, Peak) ->
        reports(?BURST, child_terminated, error),
        Now = memory(),
        settle(),
        max(Peak, Now)
    end, 0, lists:seq(1, 1000000 div ?BURST)),
    {(erlang:monotonic_time(millisecond) - Start) / 1000, Peak}.

%% All bytes that the agent holds: its processes and its tables.
memory() ->
    Processes = [element(2, process_info(whereis(Name), memory)) || Name <- [restart_agent, restart_agent_keeper]],
    Tables = [ets:info(Table, memory) * erlang:system_info(wordsize)
              || Table <- ets:all(), lists:prefix("restart_agent", atom_to_list(ets:info(Table, name)))],
    lists:sum(Processes) + lists:sum(Tables).

settle() ->
    case whereis(restart_agent) of
        undefined -> ok;
        _ -> await(fun() -> maps:get(queue, restart_agent:status()) =:= 0 end)
    end.

await(Condition) ->
    case Condition() of
        true -> ok;
        false -> timer:sleep(5), await(Condition)
    end.
