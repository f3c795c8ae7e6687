"""Chat templates written for the tests, each in the manner of a family, and conversations to render by them."""

# ruff: noqa: E501 (a line break in a template is part of it)

from typing import Any

CHATML = """{% for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""

SMOLLM2 = """{%- for message in messages %}
    {%- if loop.first and messages[0]['role'] != 'system' %}
        {{- '<|im_start|>system\\nYou are small and polite.<|im_end|>\\n' }}
    {%- endif %}
    {{- '<|im_start|>' ~ message['role'] ~ '\\n' ~ message['content'] ~ '<|im_end|>' ~ '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

QWEN2 = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}{{- messages[0]['content'] }}
    {%- else %}{{- 'A helper speaks.' }}
    {%- endif %}
    {{- "\\n\\n# Functions\\n\\nWithin <tools></tools>:\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools>\\n\\nCall: <tool_call>\\n{\\"name\\": <name>, \\"arguments\\": <object>}\\n</tool_call><|im_end|>\\n" }}
{%- elif messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first)
           or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}{{- '\\n' + message.content }}{%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""

QWEN3 = """{%- macro turn(role, text) -%}
    {{- '<|im_start|>' + role + '\\n' + text + '<|im_end|>\\n' -}}
{%- endmacro -%}
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- "<tools>" }}{%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}{{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0].role == 'system' %}
    {{- turn('system', messages[0].content) }}
{%- endif %}
{%- set ns = namespace(searching=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and message.content is string
           and not (message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- turn(message.role, content) }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or reasoning) %}
            {{- '<|im_start|>assistant\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>assistant\\n' + content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls or [] %}
            {%- if (loop.first and content) or (not loop.first) %}{{- '\\n' }}{%- endif %}
            {%- set call = tool_call.function or tool_call %}
            {{- '<tool_call>\\n{"name": "' ~ call.name ~ '", "arguments": ' }}
            {%- if call.arguments is string %}{{- call.arguments }}{%- else %}{{- call.arguments | tojson }}{%- endif %}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {{- turn('user', '<tool_response>\\n' + content + '\\n</tool_response>') }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""

LLAMA3 = """{{- bos_token }}
{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}{%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}{%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message + "<|eot_id|>" }}
{%- if tools is not none and messages|length != 0 %}
    {%- set first = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\nFunctions:\\n\\n' }}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
    {{- first + "<|eot_id|>" }}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}{{- raise_exception("Only one call at a time!") }}{%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + call.name + '", "parameters": ' }}{{- call.arguments | tojson }}{{- "}<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or (message.content is iterable and message.content is not string) %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}
"""

GEMMA3 = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set rest = messages[1:] -%}
{%- else -%}
    {%- set prefix = "" -%}
    {%- set rest = messages -%}
{%- endif -%}
{%- for message in rest -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Roles must go user, assistant, user, assistant") }}
    {%- endif -%}
    {%- set role = "model" if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '\\n' + (prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<start_of_turn>model\\n' }}
{%- endif -%}
"""

PHI3 = """{% for message in messages %}
{% if message['role'] == 'system' %}
{{'<|system|>
' + message['content'] + '<|end|>
'}}{% elif message['role'] == 'user' %}
{{'<|user|>
' + message['content'] + '<|end|>
'}}{% elif message['role'] == 'assistant' %}
{{'<|assistant|>
' + message['content'] + '<|end|>
'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>
' }}{% else %}{{ eos_token }}{% endif %}"""

PHI4 = """{%- for message in messages -%}
{%- if message['role'] == 'system' and tools -%}
{{- '<|system|>' + message['content'] + '<|tool|>' + tools | tojson + '<|/tool|><|end|>' -}}
{%- elif message['role'] == 'assistant' and message.tool_calls -%}
{{- '<|assistant|>' + message.content + '<|tool_call|>[' -}}
{%- for c in message.tool_calls -%}
{{- {'name': c.function.name, 'arguments': c.function.arguments} | tojson -}}{{- ', ' if not loop.last -}}
{%- endfor -%}
{{- ']<|/tool_call|><|end|>' -}}
{%- else -%}
{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"""

MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(index=0) %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("user and assistant must take turns") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}{{- '"' + key + '": "' + val + '"' }}
                    {%- else %}{{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}{{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}{{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- raise_exception("ids of calls have nine letters or digits") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool" %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content|string + ", " }}
        {{- '"call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception("only user, assistant and tool take part") }}
    {%- endif %}
{%- endfor %}
"""

SMOLLM3 = """{%- if enable_thinking is not defined -%}{%- set enable_thinking = true -%}{%- endif -%}
{%- set mode = "/think" if enable_thinking else "/no_think" -%}
{{- "<|im_start|>system\\n" -}}
{%- if messages[0].role == "system" -%}
  {%- set said = messages[0].content -%}
  {%- if "/no_think" in said -%}{%- set mode = "/no_think" -%}{%- elif "/think" in said -%}{%- set mode = "/think" -%}{%- endif -%}
  {%- set custom = said.replace("/no_think", "").replace("/think", "").rstrip() -%}
{%- endif -%}
{{- "## Metadata\\n\\nToday: " ~ strftime_now("%d %B %Y") ~ "\\nReasoning: " ~ mode ~ "\\n\\n" -}}
{%- if custom -%}{{- custom + "\\n\\n" -}}{%- endif -%}
{%- set xml_tools = tools or [] -%}
{%- if xml_tools -%}
  {%- set ns = namespace(text="### Tools\\n<tools>\\n") -%}
  {%- for tool in xml_tools -%}{%- set ns.text = ns.text ~ (tool | string) ~ "\\n" -%}{%- endfor -%}
  {%- set block = ns.text + "</tools>\\nAnswer by <tool_call>...</tool_call>" -%}
  {{- block + "\\n\\n" -}}
{%- endif -%}
{{- "<|im_end|>\\n" -}}
{%- for message in messages -%}
    {%- set content = message.content if message.content is string else "" -%}
    {%- if message.role == "user" -%}
        {{ "<|im_start|>" + message.role + "\\n"  + content + "<|im_end|>\\n" }}
    {%- elif message.role == "assistant" -%}
        {% generation %}
        {%- if mode == "/think" -%}
            {{ "<|im_start|>assistant\\n" + content.lstrip("\\n") + "<|im_end|>\\n" }}
        {%- else -%}
            {{ "<|im_start|>assistant\\n" + "<think>\\n\\n</think>\\n" + content.lstrip("\\n") + "<|im_end|>\\n" }}
        {%- endif -%}
        {% endgeneration %}
    {%- elif message.role == "tool" -%}
        {{ "<|im_start|>" + "user\\n"  + content + "<|im_end|>\\n" }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {%- if mode == "/think" -%}{{ "<|im_start|>assistant\\n" }}
    {%- else -%}{{ "<|im_start|>assistant\\n" + "<think>\\n\\n</think>\\n"  }}
    {%- endif -%}
{%- endif -%}
"""

R1 = """{{- bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '<U>' + m.content }}
{%- elif m.role == 'assistant' %}{{ '<A>' + (m.content.split('</think>')|last) + eos_token }}
{%- elif m.role == 'system' %}{{ m.content }}{% else %}{% continue %}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<A><think>\\n' }}{% endif %}"""

# What the language has that chat templates use now and then.
CORNERS = """
{% set greeting %}  Hi {{ messages|length }}  {% endset %}
{{ greeting | trim | upper | replace('HI', 'hi', 1) }}|{{ greeting.strip() ~ 1 ~ none ~ true ~ 1.5 }}
{% for key, value in {'b': [1, 2.5], 'a': {'c': none}}|dictsort %}{{ key }}={{ value }}{{ ';' if not loop.last }}{% endfor %}
{% for m in messages if m.role != 'system' %}{{ loop.index }}/{{ loop.length }}{{ loop.cycle('x', 'y') }}{% else %}none{% endfor %}
{% macro item(text, mark='*', extra=none) %}{{ mark }} {{ text }}{{ caller() if caller }}{{ kwargs }}{{ varargs }}{% endmacro %}
{{ item('one') }}{{ item('two', mark='-', more=1) }}{% call item('three') %}[called]{% endcall %}
{% filter upper %}loud {{ bos_token }}{% endfilter %}
{% with a = 1, b = 2 %}{{ a + b * 3 - 7 // 2 % 3 }}{{ a < b <= 2 }}{{ 2 ** 5 }}{{ -a }}{{ 7 / 2 }}{% endwith %}
{% for n in range(10) %}{% if n is odd %}{% continue %}{% elif n > 6 %}{% break %}{% endif %}{{ n }}{% endfor %}
{{ [3, 1, 2]|sort|join(',') }}{{ [3, 1]|sum }}{{ ['a', 'b']|map('upper')|list }}{{ [1, 2, 3]|batch(2)|list }}
{{ messages|map(attribute='role')|unique|join('-') }}{{ messages|selectattr('role', 'in', ['user'])|list|length }}
{{ messages|rejectattr('content')|list|count }}{{ (messages|first).role }}{{ (messages|last)['role'] }}
{{ messages[-1].content[:3] }}{{ messages[-1].content[::-1] }}{{ 'a' in 'abc' and 'd' not in ['d'] or 'x' is in ['x'] }}
{{ {'k': 'v<>&é'}|tojson }}{{ [1, {'z': 1, 'y': [true, none]}]|tojson(indent=2) }}{{ {'b': 1, 'a': 2}|tojson(sort_keys=true) }}
{{ 'ü'|tojson(ensure_ascii=true) }}{{ [1, 2]|tojson(separators=(',', ':')) }}{{ '%s and %d' % ('x', 3) }}{{ '%s'|format('y') }}
{{ '{} {b!r:>5}'.format(1, b='q') }}{{ 'a,b,,c'.split(',') }}{{ 'a b'.title() }}{{ 'aXbX'.rsplit('X', 1)[0] }}
{{ undefined_thing is defined }}{{ undefined_thing }}{{ undefined_thing|default('d') }}{{ '' | default('e', true) }}
{{ '12'|int + '1.5'|float }}{{ 2.567|round(1) }}{{ [1, 2]|length }}{{ 'abc'|reverse }}{{ [1, 2]|reverse|list }}
{{ 'a\\nb'|indent(2) }}{{ 'long text here'|truncate(9) }}{{ 'mid'|center(9) }}{{ 'one two'|wordcount }}{{ [[1, 2], [3]]|sum(start=[]) }}
{{ 'x' * 3 }}{{ [0] * 2 }}{{ [1] + [2] }}{{ (1, 2) }}{{ 'a' if false }}{{ none }}{{ messages is iterable }}{{ messages[0] is mapping }}
{% set ns = namespace(n=0, log='') %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% set ns.log = ns.log ~ m.role[0] %}{% endfor %}{{ ns.n ~ ns.log }}
{% for x in [[1, [2]], [3]] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}@{{ loop.depth }}{% endif %}{% endfor %}
{{ dict(a=1, **{'b': 2}) }}{{ dict([('c', 3)]).get('c') }}{{ {'a': 1}.items()|list }}{{ {'a': 1}.keys()|list }}{{ {1: 2, 'x': 3}.values()|sum }}
{% raw %}{{ not rendered }}{% endraw %}{# a comment #}{{ '<b>'|e }}{{ '<i>'|safe }}
{% for group in [{'k': 1, 'v': 'a'}, {'k': 2, 'v': 'b'}, {'k': 1, 'v': 'c'}]|groupby('k') %}{{ group.grouper }}:{{ group.list|map(attribute='v')|join }}{% endfor %}
{% set row = cycler('odd', 'even') %}{{ row.next() }}{{ row.next() }}{{ row.current }}{% set j = joiner('|') %}{{ j() }}a{{ j() }}b
{% if messages|selectattr('role', 'equalto', 'nobody') %}an iterator is true{% endif %}{{ messages|map('length')|max }}{{ [2, 1]|min }}
{% for m in messages %}{{ loop.previtem.role if not loop.first }}<{{ loop.nextitem.role if not loop.last }}>{{ loop.changed(m.role) }}{% endfor %}
"""

FAMILIES: dict[str, str] = {
    "chatml": CHATML,
    "smollm2": SMOLLM2,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "llama3": LLAMA3,
    "gemma3": GEMMA3,
    "phi3": PHI3,
    "phi4": PHI4,
    "mistral": MISTRAL,
    "smollm3": SMOLLM3,
    "r1": R1,
    "corners": CORNERS,
}

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": 'The weather <now> & "here", in °C',
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Größe, 東京"},
                "days": {"type": "integer", "minimum": 1, "maximum": 7},
            },
            "required": ["city"],
        },
    },
}
CLOCK: dict[str, Any] = {
    "type": "function",
    "function": {"name": "clock", "description": "", "parameters": {"type": "object", "properties": {}}},
}


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def _called(*calls: tuple[str, str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"id": id, "type": "function", "function": {"name": name, "arguments": args}} for id, name, args in calls]


_SYSTEM = {"role": "system", "content": "  Be brief.\n"}
_ONE_CALL = _assistant("", tool_calls=_called(("call00000", "get_weather", {"city": "Zürich <b>", "days": 2})))
_TWO_CALLS = _assistant(
    "Let me look.", tool_calls=_called(("call00000", "get_weather", {"city": "a"}), ("call00001", "clock", {}))
)
_RESULT = {"role": "tool", "tool_call_id": "call00000", "name": "get_weather", "content": '{"t": 21.5}'}

CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "one": [_user("Hello")],
    "system": [_SYSTEM, _user("Hello")],
    "turns": [_SYSTEM, _user("a"), _assistant("b"), _user("c"), _assistant("d"), _user("e")],
    "unicode": [_user("naïve 👩‍👩‍👧 東京 \u202e\u0000\x1b <|im_end|> {{ 1 }} {% raw %}")],
    "empty": [_user(""), _assistant(""), _user("")],
    "spaces": [_user("\n\n  lead\t"), _assistant("\ntrail \n\n"), _user(" \n")],
    "call": [_user("Weather?"), _ONE_CALL],
    "result": [_SYSTEM, _user("Weather?"), _ONE_CALL, _RESULT],
    "answered": [_user("Weather?"), _ONE_CALL, _RESULT, _assistant("21.5 degrees."), _user("Thanks")],
    "parallel": [
        _user("Both?"),
        _TWO_CALLS,
        _RESULT,
        {"role": "tool", "tool_call_id": "call00001", "name": "clock", "content": ""},
    ],
    "thought": [_user("2+2"), _assistant("<think>\nfour\n</think>\n\n4"), _user("and 3+3?"), _assistant("6")],
    "reasoned": [_user("2+2"), _assistant("4", reasoning_content="two and two", thinking="two and two")],
    "out of turn": [_user("a"), _user("b")],
    "assistant first": [_assistant("a"), _user("b")],
}
