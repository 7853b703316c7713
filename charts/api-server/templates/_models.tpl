{{/* The models file, without the chart's own ways to name an address. */}}
{{- define "api-server.modelsFile" -}}
models:
{{- range $model := .Values.models }}
{{- $addresses := list }}
{{- range $model.addresses }}
{{- $address := omit . "modelHost" "namespace" "keySecret" }}
{{- if .modelHost }}
{{- $where := printf "%s.svc" (default $.Release.Namespace .namespace) }}
{{- $direct := printf "http://%s-direct.%s" .modelHost $where }}
{{- $_ := set $address "url" (ternary (printf "http://%s-pods.%s:8080" .modelHost $where) $direct (default false .resolve)) }}
{{- if .resolve }}{{- $_ := set $address "standby" $direct }}{{- end }}
{{- end }}
{{- with include "api-server.addressKey" (list $ .) }}{{- $_ := set $address "key_file" (printf "/etc/qna-keys/%s" .) }}{{- end }}
{{- if hasKey $address "weight" }}{{- $_ := set $address "weight" (int $address.weight) }}{{- end }}
{{- $addresses = append $addresses $address }}
{{- end }}
  - {{- merge (dict "addresses" $addresses) (deepCopy $model) | toYaml | nindent 4 }}
{{- end }}
{{- end -}}

{{/* Secret with the key that an address asks for, empty where none is sent: (list $ address). */}}
{{- define "api-server.addressKey" -}}
{{- $auth := (index . 0).Values.modelHost.auth -}}
{{- with index . 1 -}}
{{- if not $auth.enabled -}}
{{- else if hasKey . "keySecret" -}}
{{- .keySecret -}}
{{- else if .modelHost -}}
{{- default (printf "%s-key" .modelHost) $auth.existingSecret -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The Secrets of all addresses, each once, as JSON. */}}
{{- define "api-server.addressKeys" -}}
{{- $names := list -}}
{{- range .Values.models }}{{- range .addresses }}
{{- with include "api-server.addressKey" (list $ .) }}{{- $names = append $names . }}{{- end }}
{{- end }}{{- end -}}
{{- uniq $names | toJson -}}
{{- end -}}

{{/* Name and namespace of every InferenceService that is asked, each once, as JSON. */}}
{{- define "api-server.modelHosts" -}}
{{- $hosts := list -}}
{{- if .Values.models -}}
{{- range .Values.models }}{{- range .addresses }}
{{- if .modelHost }}{{- $hosts = append $hosts (dict "name" .modelHost "namespace" (default "" .namespace)) }}{{- end }}
{{- end }}{{- end -}}
{{- else if not .Values.modelHost.url -}}
{{- $hosts = append $hosts (pick .Values.modelHost "name" "namespace") -}}
{{- end -}}
{{- uniq $hosts | toJson -}}
{{- end -}}

{{/* Refuses models that the API server would refuse, before a pod does. */}}
{{- define "api-server.validateModels" -}}
{{- if .Values.models -}}
{{- if or .Values.modelHost.url .Values.modelHost.namespace (ne .Values.modelHost.name "model-host") -}}
{{- fail "models and modelHost both say who answers: name every address in models, and leave modelHost as it is" -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if eq .name "API_MODELS_FILE" }}{{- fail "models and extraEnv both set API_MODELS_FILE: keep one" }}{{- end -}}
{{- end -}}
{{- $taken := dict -}}
{{- $fallbacks := dict -}}
{{- range $model := .Values.models -}}
{{- range concat (list .name) (default (list) .aliases) -}}
{{- if hasKey $taken . }}{{- fail (printf "models: the name %s stands twice; names and aliases share one list" .) }}{{- end -}}
{{- $_ := set $taken . true -}}
{{- end -}}
{{- $_ := set $fallbacks .name (default "" .fallback) -}}
{{- $urls := dict -}}
{{- $some := false -}}
{{- range .addresses -}}
{{- $address := default (printf "modelHost %s in namespace %s" .modelHost (default $.Release.Namespace .namespace)) .url -}}
{{- if hasKey $urls $address }}{{- fail (printf "models: %s has the address %s twice; give it one weight" $model.name $address) }}{{- end -}}
{{- $_ := set $urls $address true -}}
{{- if or (not (hasKey . "weight")) (gt (int .weight) 0) }}{{- $some = true }}{{- end -}}
{{- if and .namespace (ne .namespace $.Release.Namespace) $.Values.modelHost.auth.enabled (not $.Values.modelHost.auth.existingSecret) (not (hasKey . "keySecret")) -}}
{{- fail (printf "models: %s is in namespace %s, whose Secret %s-key cannot be read from here: copy it into this namespace and name the copy in the address's keySecret" .modelHost .namespace .modelHost) -}}
{{- end -}}
{{- if and .resolve .url (hasPrefix "https://" .url) }}{{- fail (printf "models: %s has resolve for %s, which works with http:// only" $model.name .url) }}{{- end -}}
{{- end -}}
{{- if not $some }}{{- fail (printf "models: every address of %s has weight 0; one at least must have more" .name) }}{{- end -}}
{{- end -}}
{{- range .Values.models -}}
{{- $start := .name -}}
{{- $at := .name -}}
{{- range $.Values.models -}}
{{- $next := get $fallbacks $at -}}
{{- if $next -}}
{{- if not (hasKey $fallbacks $next) }}{{- fail (printf "models: the fallback of %s is %s, but no model has that name" $at $next) }}{{- end -}}
{{- if eq $next $start }}{{- fail (printf "models: the fallback of %s leads back to it" $start) }}{{- end -}}
{{- $at = $next -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
