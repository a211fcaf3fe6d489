{{/* A setting's text: numbers of a values file are floats, which print as 1e+06 from a million on. */}}
{{- define "sub60.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end }}

{{- define "sub60.secretVariable" -}}
- name: {{ .name }}
  valueFrom: {secretKeyRef: {name: {{ .secret.name | quote }}, key: {{ .secret.key | quote }}}}
{{- end }}

{{/* How we reach the log: (dict "root" $ "user" … "password" SECRET). */}}
{{- define "sub60.logVariables" -}}
{{- $log := .root.Values.log }}
{{- $service := ternary "KAFKA" "REDIS" (eq (include "sub60.logIsKafka" .root) "true") }}
- {name: SUB60_LOG_URL, value: {{ $log.url | quote }}}
- {name: SUB60_PARTITIONS, value: {{ include "sub60.text" .root.Values.partitions | quote }}}
{{- if .user }}
- {name: SUB60_{{ $service }}_USER, value: {{ .user | quote }}}
{{- end }}
{{- if .password.name }}
{{ include "sub60.secretVariable" (dict "name" (printf "SUB60_%s_PASSWORD" $service) "secret" .password) }}
{{- end }}
{{- if eq $service "KAFKA" }}
- {name: SUB60_KAFKA_MECHANISM, value: {{ $log.mechanism | quote }}}
- {name: SUB60_KAFKA_TLS, value: {{ $log.tls | quote }}}
{{- if $log.caSecret.name }}
- {name: SUB60_KAFKA_CA, value: /etc/sub60/kafka-ca/ca.pem}
{{- end }}
{{- if $log.clientSecret.name }}
- {name: SUB60_KAFKA_CERTIFICATE, value: /etc/sub60/kafka-client/certificate.pem}
- {name: SUB60_KAFKA_KEY, value: /etc/sub60/kafka-client/key.pem}
{{- end }}
{{- end }}
{{- if .root.Values.cache.caSecret.name }}
- {name: SUB60_REDIS_CA, value: /etc/sub60/redis-ca/ca.pem}
{{- end }}
{{- end }}

{{/* Everything else: (dict "root" $ "role" "worker"). */}}
{{- define "sub60.variables" -}}
{{- $values := .root.Values }}
{{- $hasSlot := has .role (list "worker" "prefetch") }}
{{ include "sub60.logVariables" (dict "root" .root "user" $values.log.user "password" $values.log.passwordSecret) | trim }}
- {name: SUB60_HTTP_HOST, value: "0.0.0.0"}
- {name: SUB60_HTTP_PORT, value: "8060"}
- {name: SUB60_STATE_DIR, value: /var/lib/sub60}
- {name: SUB60_COMPILED_CACHE, value: /var/cache/sub60}
{{- if $hasSlot }}
# transactional.id and group.instance.id come from it: two pods of a slot would end each other
- name: SUB60_SLOT
  valueFrom: {fieldRef: {fieldPath: "metadata.labels['apps.kubernetes.io/pod-index']"}}
{{- end }}
{{- if ne .role "api" }}
- {name: SUB60_DATASET, value: /data}
{{- if and (has .role (list "worker" "fanout")) $values.raws.existingClaim }}
- {name: SUB60_RAW_ROOTS, value: {{ $values.raws.mountPath | quote }}}
{{- end }}
{{- if ne .role "fanout" }}
- {name: SUB60_CACHE_URL, value: {{ $values.cache.url | quote }}}
{{- if $values.cache.user }}
- {name: SUB60_CACHE_USER, value: {{ $values.cache.user | quote }}}
{{- end }}
{{- if $values.cache.passwordSecret.name }}
{{ include "sub60.secretVariable" (dict "name" "SUB60_CACHE_PASSWORD" "secret" $values.cache.passwordSecret) }}
{{- end }}
{{- if $values.apdb.configSecret.name }}
- {name: SUB60_APDB_CONFIG, value: /etc/sub60/apdb/config.yaml}
{{- end }}
{{- if $values.apdb.credentialsSecret.name }}
{{ include "sub60.secretVariable" (dict "name" "LSST_DB_AUTH_CREDENTIALS" "secret" $values.apdb.credentialsSecret) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and (eq .role "api") $values.api.tokenSecret.name }}
{{ include "sub60.secretVariable" (dict "name" "SUB60_HTTP_TOKEN" "secret" $values.api.tokenSecret) }}
{{- end }}
{{- if and (eq .role "worker") $values.pipeline }}
- {name: SUB60_PIPELINE, value: /etc/sub60/pipeline/pipeline.toml}
{{- end }}
{{- if eq .role "prefetch" }}
# as service/settings.py's compute_environment, which a worker gives its child: parallelism is ours, freed planes stay
{{- range list "OPENBLAS_NUM_THREADS" "OMP_NUM_THREADS" "MKL_NUM_THREADS" "NUMBA_NUM_THREADS" "BLOSC_NTHREADS" }}
- {name: {{ . }}, value: "1"}
{{- end }}
- {name: MALLOC_MMAP_MAX_, value: "0"}
- {name: MALLOC_TRIM_THRESHOLD_, value: "2147483647"}
- {name: MALLOC_ARENA_MAX, value: "1"}
{{- end }}
{{- range $name, $value := $values.settings }}
- {name: SUB60_{{ upper $name }}, value: {{ include "sub60.text" $value | quote }}}
{{- end }}
{{- end }}
