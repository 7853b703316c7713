{{/* Not empty where a Job brings the database's schema up to date before an upgrade. */}}
{{- define "api-server.migrates" -}}
{{- if and .Values.migration.enabled (include "api-server.onServer" .) }}true{{ end -}}
{{- end -}}

{{- define "api-server.migrationSelector" -}}
{{ include "api-server.selectorLabels" . }}
app.kubernetes.io/component: migration
{{- end -}}
