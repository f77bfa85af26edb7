# Runs the Elixir code of a document, byte for byte, against the agent: `elixir tests/document.exs DOCUMENT ADDRESS`, with the agent and
# the stand-in for telemetry compiled in the code path (`-pa`), and an exporter that listens at ADDRESS.
#
# A block that defines modules is compiled as it is. A block of functions is put into the module that its first line names as a file
# (`# lib/otp_supervisor/core/control.ex`). Blocks that are incomplete, such as quotations of old code, are named and left out. What the
# blocks need and do not define is defined here. Ends with the result of the document's own tests.
[path, address] = System.argv()

# What an application of the document's kind has: children that do nothing.
for module <- [OtpSupervisorWeb.Telemetry, DNSCluster, Phoenix.PubSub, Finch, OtpSupervisorWeb.Endpoint] do
  defmodule module do
    def child_spec(_), do: %{id: __MODULE__, start: {Agent, :start_link, [fn -> nil end]}}
  end
end

for module <- [TestDemoSupervisor, OTPSupervisor.Sandbox.Supervisors.DemoSupervisor] do
  defmodule module do
    use Supervisor
    def start_link(options), do: Supervisor.start_link(__MODULE__, options, name: options[:name])
    def init(options) do
      children = for id <- [:counter, :printer], do: %{id: id, start: {Agent, :start_link, [fn -> 0 end]}}
      Supervisor.init(children, strategy: Keyword.get(options, :strategy, :one_for_one))
    end
  end
end

# What the block of functions for Control calls and does not define.
helpers = "defp to_pid(pid) when is_pid(pid), do: {:ok, pid}\ndefp to_pid(name), do: {:ok, Process.whereis(name)}\n"

module_of = fn file ->
  words = file |> String.replace_prefix("lib/", "") |> Path.rootname() |> String.split("/")
  words |> Enum.map(&Macro.camelize/1) |> Enum.map(&String.replace(&1, "OtpSupervisor", "OTPSupervisor")) |> Enum.join(".")
end

ExUnit.start(autorun: false)
blocks = Regex.scan(~r/^```elixir\n(.*?)^```$/ms, File.read!(path), capture: :all_but_first) |> List.flatten()

for {block, number} <- Enum.with_index(blocks, 1) do
  file = with [file] <- Regex.run(~r/\A# (lib\/\S+\.ex)$/m, block, capture: :all_but_first), do: file
  case Code.string_to_quoted(block) do
    {:error, _} ->
      IO.puts("block #{number}: incomplete, left out")
    {:ok, _} when is_binary(file) ->
      module = module_of.(file)
      helpers = if block =~ "to_pid(", do: helpers, else: ""
      Code.compile_string("defmodule #{module} do\n#{helpers}#{block}\nend", file)
      IO.puts("block #{number}: #{byte_size(block)} bytes in #{module}")
    {:ok, _} ->
      modules = for {module, _} <- Code.compile_string(block, "block #{number}"), do: inspect(module)
      IO.puts("block #{number}: #{byte_size(block)} bytes, #{Enum.join(modules, ", ")}")
  end
end

{:module, :telemetry} = Code.ensure_loaded(:telemetry)
{:ok, _} = :restart_agent.start(address: address, telemetry: true)
{:ok, _} = OTPSupervisor.Application.start(:normal, [])
# The agent first looks at the supervisors that run already.
Process.sleep(1000)
%{failures: failures, total: total} = ExUnit.run()
stats = OTPSupervisor.Core.AnalyticsServer.get_all_supervisor_stats()
IO.inspect(stats, label: "AnalyticsServer")
System.halt(if failures == 0 and total > 0, do: 0, else: 1)
