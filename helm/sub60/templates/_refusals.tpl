{{/* What a schema cannot say; included once. */}}
{{- define "sub60.refuse" -}}
{{- $values := .Values }}
{{- if not $values.log.url }}{{ fail "log.url is needed: kafka://host:port or redis(s)://host:port" }}{{ end }}
{{- if not $values.cache.url }}{{ fail "cache.url is needed: redis(s)://host:port" }}{{ end }}
{{- if and (ne (include "sub60.logIsKafka" .) "true") (or $values.log.caSecret.name $values.log.clientSecret.name $values.log.tls) }}
{{- fail "log.tls, log.caSecret and log.clientSecret are Kafka's: a Redis log takes rediss:// and cache.caSecret" }}
{{- end }}
{{- range tuple (list "log" $values.log) (list "cache" $values.cache) }}
{{- $where := index . 1 }}
{{- if and $where.user (not $where.passwordSecret.name) }}{{ fail (printf "%s.user needs %s.passwordSecret.name" (index . 0) (index . 0)) }}{{ end }}
{{- end }}
{{- if and $values.keda.enabled (gt (int $values.keda.night.desiredReplicas) (int $values.keda.maxReplicas)) }}
{{- fail "keda.night.desiredReplicas is above keda.maxReplicas" }}
{{- end }}
{{- if and $values.keda.enabled (gt (int $values.keda.maxReplicas) (int $values.partitions)) (not $values.keda.lag.allowIdleConsumers) }}
{{- fail "keda.maxReplicas is above partitions: those workers would have no work (keda.lag.allowIdleConsumers, for hot spares)" }}
{{- end }}
{{- $limit := $values.worker.resources.limits.memory }}
{{- $child := int (dig "child_memory_mb" 6144 $values.settings) }}
{{- if and (hasSuffix "Gi" $limit) (lt (mul 1024 (int (trimSuffix "Gi" $limit))) (add $child 1024)) }}
{{- fail (printf "worker.resources.limits.memory (%s) must be 1 GiB above the child's limit (settings.child_memory_mb: %d MB)" $limit $child) }}
{{- end }}
{{- end }}
