"""Fluentd: container logs into Elasticsearch. Shipped and checked for syntax, not run in the tests.

Plugins: elasticsearch, kubernetes_metadata_filter, concat, multi-format-parser, prometheus, as in
the image fluentd-kubernetes-daemonset with multi-format-parser and prometheus added.
"""

from __future__ import annotations

from ragprof.monitoring.index_template import PREFIX

FILES = "/var/log/containers/*rag-system*.log"


def config(host: str = "elasticsearch", port: int = 9200) -> str:
    """fluent.conf: CRI and Docker lines, parts joined, inner JSON parsed, bad lines kept."""
    return f"""\
# Log lines of the RAG service into Elasticsearch: one document as in the index template.
<source>
  @type tail
  @id rag_system_logs
  path {FILES}
  pos_file /var/log/fluentd/rag-system.pos
  tag kubernetes.*
  read_from_head true
  <parse>
    @type multi_format
    <pattern>
      # containerd, CRI-O: TIME stdout F {{json}}; P marks a part
      format regexp
      expression /^(?<time>[^ ]+) (?<stream>stdout|stderr) (?<logtag>[FP]) (?<log>.*)$/
      time_format %Y-%m-%dT%H:%M:%S.%N%:z
    </pattern>
    <pattern>
      # Docker: {{"log": "{{json}}\\n", "stream": "stdout", "time": "..."}}
      format json
      time_key time
      time_format %Y-%m-%dT%H:%M:%S.%N%:z
    </pattern>
  </parse>
</source>

<source>
  # Counters, the lines that could not be parsed among them
  @type prometheus
  bind 0.0.0.0
  port 24231
</source>

<filter kubernetes.**>
  # Docker does not mark the parts of a line: all but the last end without a newline
  @type record_transformer
  enable_ruby true
  <record>
    logtag ${{record["logtag"] || (record["log"].to_s.end_with?("\\n") ? "F" : "P")}}
  </record>
</filter>

<filter kubernetes.**>
  # Parts are joined
  @type concat
  key log
  use_partial_cri_logtag true
  partial_cri_logtag_key logtag
  partial_cri_stream_key stream
  separator ""
  flush_interval 5
  timeout_label @WHOLE
</filter>

<match kubernetes.**>
  @type relabel
  @label @WHOLE
</match>

<label @WHOLE>
  <filter kubernetes.**>
    @type kubernetes_metadata
    skip_labels true
  </filter>

  <filter kubernetes.**>
    # What is no JSON goes to @ERROR
    @type parser
    key_name log
    reserve_data true
    reserve_time true
    remove_key_name_field true
    emit_invalid_record_to_error true
    <parse>
      @type json
      time_key timestamp
      keep_time_key true
      time_type string
      time_format %Y-%m-%dT%H:%M:%S.%N%:z
    </parse>
  </filter>

  <match kubernetes.**>
    @type elasticsearch
    @id rag_system_elasticsearch
    host {host}
    port {port}
    logstash_format true
    logstash_prefix {PREFIX}
    logstash_dateformat %Y.%m.%d
    time_key timestamp
    time_key_exclude_timestamp false
    include_timestamp true
    suppress_type_name true
    bulk_message_request_threshold 2M
    reconnect_on_error true
    reload_on_failure true
    request_timeout 30s
    <buffer>
      @type file
      path /var/log/fluentd/buffer/rag-system
      flush_mode interval
      flush_interval 10s
      chunk_limit_size 2MB
      queue_limit_length 32
      retry_type exponential_backoff
      retry_max_interval 30
      retry_timeout 1h
      overflow_action block
    </buffer>
  </match>
</label>

<label @ERROR>
  <filter **>
    @type prometheus
    <metric>
      name rag_system_unparsed_lines_total
      type counter
      desc Log lines that could not be parsed or stored
    </metric>
  </filter>
  <match **>
    # Kept, to be looked at
    @type file
    path /var/log/fluentd/rag-system-unparsed
    append true
    <buffer time>
      timekey 1d
      timekey_wait 1m
      flush_mode interval
      flush_interval 10s
    </buffer>
  </match>
</label>
"""
