{{- define "api-server.purgeSelector" -}}
{{ include "api-server.selectorLabels" . }}
app.kubernetes.io/component: purge
{{- end -}}

{{- define "api-server.validatePurge" -}}
{{- if .Values.purge.enabled -}}
{{- if not (include "api-server.onServer" .) -}}
{{- fail "purge.enabled is true, but the chats are in a SQLite file, which is open in the API server's pod and cannot be shared with a Job: set config.retentionDays, by which that pod deletes, or database.existingSecret" -}}
{{- end -}}
{{- if gt (float64 (default 0 .Values.config.retentionDays)) 0.0 -}}
{{- fail "purge.enabled and config.retentionDays both delete old chats: leave config.retentionDays at null, or purge.enabled at false" -}}
{{- end -}}
{{- end -}}
{{- end -}}
