{{- define "sub60.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "sub60.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* A Secret's keys as files of a volume: (dict "volume" … "secret" NAME "files" (dict FILE KEY …)). */}}
{{- define "sub60.secretVolume" -}}
- name: {{ .volume }}
  secret:
    secretName: {{ .secret | quote }}
    defaultMode: 0440
    items:
      {{- range $file, $key := .files }}
      - {key: {{ $key | quote }}, path: {{ $file }}}
      {{- end }}
{{- end }}

{{/* Certificates of log and cache, for the service and for the topics' job. */}}
{{- define "sub60.certificateVolumes" -}}
{{- $log := .Values.log }}
{{- if eq (include "sub60.logIsKafka" .) "true" }}
{{- with $log.caSecret }}{{ if .name }}
{{ include "sub60.secretVolume" (dict "volume" "kafka-ca" "secret" .name "files" (dict "ca.pem" .key)) }}
{{- end }}{{ end }}
{{- with $log.clientSecret }}{{ if .name }}
{{ include "sub60.secretVolume" (dict "volume" "kafka-client" "secret" .name "files" (dict "certificate.pem" .certificateKey "key.pem" .keyKey)) }}
{{- end }}{{ end }}
{{- end }}
{{- with .Values.cache.caSecret }}{{ if .name }}
{{ include "sub60.secretVolume" (dict "volume" "redis-ca" "secret" .name "files" (dict "ca.pem" .key)) }}
{{- end }}{{ end }}
{{- end }}

{{- define "sub60.certificateMounts" -}}
{{- if eq (include "sub60.logIsKafka" .) "true" }}
{{- if .Values.log.caSecret.name }}
- {name: kafka-ca, mountPath: /etc/sub60/kafka-ca, readOnly: true}
{{- end }}
{{- if .Values.log.clientSecret.name }}
- {name: kafka-client, mountPath: /etc/sub60/kafka-client, readOnly: true}
{{- end }}
{{- end }}
{{- if .Values.cache.caSecret.name }}
- {name: redis-ca, mountPath: /etc/sub60/redis-ca, readOnly: true}
{{- end }}
{{- end }}

{{/* Volumes of a role: (dict "root" $ "role" "worker"). */}}
{{- define "sub60.volumes" -}}
{{- $values := .root.Values }}
{{- $computes := has .role (list "worker" "prefetch") }}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
- name: state
{{- if eq .role "archive" }}
  persistentVolumeClaim:
    claimName: {{ $values.archive.persistence.existingClaim | default (printf "%s-state" (include "sub60.fullname" .root)) }}
{{- else }}
  emptyDir: {sizeLimit: 100Mi}
{{- end }}
- name: kernels
{{- if and $computes $values.compiledCache.existingClaim }}
  persistentVolumeClaim: {claimName: {{ $values.compiledCache.existingClaim }}}
{{- else }}
  emptyDir: {sizeLimit: {{ $values.compiledCache.sizeLimit }}}
{{- end }}
{{- if ne .role "api" }}
- name: dataset
  persistentVolumeClaim:
    claimName: {{ include "sub60.datasetClaim" .root }}
    {{- if not (and (eq .role "archive") $values.dataset.archiveWrites) }}
    readOnly: true
    {{- end }}
{{- end }}
{{- if and (has .role (list "worker" "fanout")) $values.raws.existingClaim }}
- name: raws
  persistentVolumeClaim: {claimName: {{ $values.raws.existingClaim }}, readOnly: true}
{{- end }}
{{- if and (has .role (list "worker" "prefetch" "archive")) $values.apdb.configSecret.name }}
{{ include "sub60.secretVolume" (dict "volume" "apdb" "secret" $values.apdb.configSecret.name "files" (dict "config.yaml" $values.apdb.configSecret.key)) }}
{{- end }}
{{- if and (eq .role "worker") $values.pipeline }}
- name: pipeline
  configMap: {name: {{ include "sub60.fullname" .root }}-pipeline}
{{- end }}
{{- include "sub60.certificateVolumes" .root }}
{{- end }}

{{- define "sub60.mounts" -}}
{{- $values := .root.Values }}
- {name: tmp, mountPath: /tmp}
- {name: state, mountPath: /var/lib/sub60}
- {name: kernels, mountPath: /var/cache/sub60}
{{- if ne .role "api" }}
- name: dataset
  mountPath: /data
  {{- with $values.dataset.subPath }}
  subPath: {{ . | quote }}
  {{- end }}
  {{- if not (and (eq .role "archive") $values.dataset.archiveWrites) }}
  readOnly: true
  {{- end }}
{{- end }}
{{- if and (has .role (list "worker" "fanout")) $values.raws.existingClaim }}
- {name: raws, mountPath: {{ $values.raws.mountPath | quote }}, readOnly: true}
{{- end }}
{{- if and (has .role (list "worker" "prefetch" "archive")) $values.apdb.configSecret.name }}
- {name: apdb, mountPath: /etc/sub60/apdb, readOnly: true}
{{- end }}
{{- if and (eq .role "worker") $values.pipeline }}
- {name: pipeline, mountPath: /etc/sub60/pipeline, readOnly: true}
{{- end }}
{{- include "sub60.certificateMounts" .root }}
{{- end }}

{{/* startup: HTTP opens after the checks of the start, and a process that hangs there is given as long as a warm-up may
     take. Warming up itself is no reason to kill: the worker's loop turns meanwhile and its child has a limit of its own
     (SUB60_WARM_UP_LIMIT_S). liveness: a loop that has not turned for 60 s says so; twice that, and the pod is replaced.
     Neither asks Kafka or Redis. readiness: a worker's child is warm and its group joined. */}}
{{- define "sub60.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: {{ div (add (int (dig "warm_up_limit_s" 600 .Values.settings)) 64) 5 }}
livenessProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 3
{{- end }}

{{/* What a pod is given to end (SIGTERM to SIGKILL): its drain, then leaving the group and closing. The archive's loops are
     waited for one after the other. */}}
{{- define "sub60.gracePeriod" -}}
{{- $drain := int (ceil (dig "drain_s" 20.0 .root.Values.settings)) -}}
{{- if eq .role "archive" }}{{ add (mul 4 $drain) 25 }}{{ else }}{{ add $drain 25 }}{{ end -}}
{{- end }}

{{/* The pod template of a role: (dict "root" $ "role" "worker"). */}}
{{- define "sub60.podTemplate" -}}
{{- $values := .root.Values }}
{{- $own := index $values .role }}
metadata:
  labels:
    {{- include "sub60.selectorLabels" . | nindent 4 }}
    {{- with $values.pods.labels }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- if or $values.pods.annotations (and (eq .role "worker") $values.pipeline) }}
  annotations:
    {{- if and (eq .role "worker") $values.pipeline }}
    sub60/pipeline: {{ sha256sum $values.pipeline }}
    {{- end }}
    {{- with $values.pods.annotations }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- end }}
spec:
  serviceAccountName: {{ include "sub60.serviceAccount" .root }}
  automountServiceAccountToken: false
  # a Service named sub60-… would put SUB60_…_SERVICE_HOST into every pod, and an unknown SUB60_ variable refuses to start
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "sub60.gracePeriod" . }}
  securityContext:
    {{- include "sub60.podSecurity" . | nindent 4 }}
  {{- with $values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- with $values.pods.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $own.nodeSelector }}
  nodeSelector: {{ toYaml . | nindent 4 }}
  {{- end }}
  tolerations:
    {{- range list "not-ready" "unreachable" }}
    - {key: node.kubernetes.io/{{ . }}, operator: Exists, effect: NoExecute, tolerationSeconds: {{ $values.pods.unreachableSeconds }}}
    {{- end }}
    {{- with $own.tolerations }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- if $values.pods.topologyKeys }}
  topologySpreadConstraints:
    {{- range $values.pods.topologyKeys }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "sub60.selectorLabels" $ | nindent 10 }}
    {{- end }}
  {{- end }}
  containers:
    - name: sub60
      image: {{ include "sub60.image" .root | quote }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      args: [serve, --role, {{ .role }}]
      securityContext:
        {{- include "sub60.containerSecurity" . | nindent 8 }}
      env:
        {{- include "sub60.variables" . | trim | nindent 8 }}
      ports:
        - {name: http, containerPort: 8060, protocol: TCP}
      {{- include "sub60.probes" .root | nindent 6 }}
      resources:
        {{- toYaml $own.resources | nindent 8 }}
      volumeMounts:
        {{- include "sub60.mounts" . | trim | nindent 8 }}
  volumes:
    {{- include "sub60.volumes" . | trim | nindent 4 }}
{{- end }}
