"""rsyslog: the service's log file into Elasticsearch.

Takes plain JSON lines, the CRI form (``TIME stdout F {json}``, partial lines joined) and Docker's
JSON form. A line that is none of them is kept in a file of its own and counted by impstats.
"""

from __future__ import annotations

from ragprof.monitoring.index_template import PREFIX

PARTS = 8
"""Parts of a CRI line that are joined; containerd cuts at 16 KiB, so lines up to 128 KiB."""
SIZE = "256k"
"""Longest line; rsyslog would cut it at 8 KiB."""
_CRI = "^[^ ]+ (stdout|stderr) [PF] "


def config(
    files: str = "/var/log/rag-system/*.log",
    server: str = "127.0.0.1",
    port: int = 9200,
    spool: str = "/var/spool/rsyslog",
    bad: str = "/var/log/rag-system-unparsed.txt",
    refused: str = "/var/log/rag-system-refused.txt",
) -> str:
    """rsyslog.d/rag-system.conf. `spool` holds the queue while Elasticsearch is away.

    `bad` gets lines that are not JSON, `refused` the answers of Elasticsearch to what it refused.
    """
    parts = " & ".join(
        f're_extract($msg, "(stdout|stderr) [PF] ([^\\n]*)", {number}, 2, "")'
        for number in range(PARTS)
    )
    date = 're_extract($!doc!timestamp, "^([0-9]{4}-[0-9]{2}-[0-9]{2})T", 0, 1, "")'
    return f"""\
# Log lines of the RAG service into Elasticsearch (rsyslog 8.2302, package rsyslog-elasticsearch).
# rsyslog.conf sets global(workDirectory="…"), where imfile keeps how far it has read.
global(maxMessageSize="{SIZE}")
module(load="imfile" mode="inotify")
module(load="omelasticsearch")
module(load="impstats" interval="60" resetCounters="off" log.syslog="off"
       log.file="{spool}/rag-system-stats.log")

# Without endmsg.regex every line is a message; a CRI line of parts ends with its F line, and a
# line that is not CRI ends itself.
input(type="imfile" file="{files}" tag="rag-system:" ruleset="rag-system"
      endmsg.regex="(^[^ ]+ (stdout|stderr) F )|(^[^ ]+ [^so])|(^[{{])|(^[^ ]*$)"
      escapeLF="off" readTimeout="10" addMetadata="on")

template(name="rag-system-index" type="string" string="{PREFIX}-%$.day%")
template(name="rag-system-document" type="list") {{ property(name="$!doc") }}
template(name="rag-system-raw" type="list") {{ property(name="msg") constant(value="\\n") }}

ruleset(name="rag-system" queue.type="LinkedList" queue.fileName="rag-system"
        queue.spoolDirectory="{spool}" queue.maxDiskSpace="1g" queue.size="100000"
        queue.saveOnShutdown="on") {{
  set $.line = $msg;
  if re_match($msg, "{_CRI}") then {{
    set $.line = {parts};
  }} else if $msg startswith '{{"log":' then {{
    set $.parsed = parse_json($msg, "\\$!docker");
    if $.parsed == 0 then set $.line = $!docker!log;
  }}
  set $.parsed = 1;
  if $.line startswith "{{" then set $.parsed = parse_json($.line, "\\$!doc");
  set $.day = "";
  if $.parsed == 0 then
    set $.day = replace({date}, "-", ".");
  if $.day == "" then {{
    action(type="omfile" name="rag-system-unparsed" file="{bad}" template="rag-system-raw")
    stop
  }}
  set $!doc!@timestamp = $!doc!timestamp;
  action(type="omelasticsearch" name="rag-system-elasticsearch"
         server="{server}" serverport="{port}" searchType=""
         searchIndex="rag-system-index" dynSearchIndex="on" template="rag-system-document"
         bulkmode="on" errorFile="{refused}" action.resumeRetryCount="100"
         action.resumeInterval="5" action.resumeIntervalMax="30"
         queue.type="FixedArray" queue.dequeueBatchSize="500")
}}
"""
