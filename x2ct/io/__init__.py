"""Files: radiographs, CT volumes, DICOM pixel data and reports."""
