{{- define "sub60.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* What selects the pods of a release. */}}
{{- define "sub60.releaseLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* What selects the pods of one role: (dict "root" $ "role" "worker"). */}}
{{- define "sub60.selectorLabels" -}}
{{ include "sub60.releaseLabels" .root }}
app.kubernetes.io/component: {{ .role }}
{{- end }}

{{- define "sub60.labels" -}}
{{ include "sub60.releaseLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "sub60.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "sub60.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "sub60.fullname" .) }}
{{- end }}

{{- define "sub60.datasetClaim" -}}
{{ .Values.dataset.existingClaim | default (printf "%s-dataset" (include "sub60.fullname" .)) }}
{{- end }}

{{- define "sub60.logIsKafka" -}}
{{- if hasPrefix "kafka:" .Values.log.url }}true{{ end -}}
{{- end }}

{{/* The job that Prometheus gives the PodMonitor's targets. */}}
{{- define "sub60.scrapeJob" -}}
{{ .Release.Namespace }}/{{ include "sub60.fullname" . }}
{{- end }}
