package object

func vectors() []Object {
	return []Object{
		{"vectors.tp_btf", _VectorsBTFBytes, loadVectorsBTF},
		{"vectors.raw_tp", _VectorsRawBytes, loadVectorsRaw},
		{"vectors.tracepoint", _VectorsEventBytes, loadVectorsEvent},
	}
}
